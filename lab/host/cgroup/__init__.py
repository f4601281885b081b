"""Control groups (cgroups(7)): where they are, whose they are, made and removed, read."""
