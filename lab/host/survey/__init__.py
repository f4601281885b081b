"""What this host is and what it lacks: facts, checks, restrictions, how quiet it is."""
