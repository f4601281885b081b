"""Debian roots from the host's own apt configuration, and the base images that lab makes of them."""
