"""What the backend ``bwrap`` is made of: where its program comes from, what it is told, one sandbox."""
