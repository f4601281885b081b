"""What a container's control group is held to, which devices it may open, and what it has used."""
