"""What the backend ``nspawn`` is made of: where its program comes from, what it is told, one container."""
