"""Builds on the command line: what is said of one, what is seen of it, and who runs its steps."""
