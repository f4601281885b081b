"""How a container starts: by a launcher, from an OCI configuration."""
