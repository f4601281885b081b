"""Podman with a store of a session's own, and the containers it makes: what the backend ``podman`` is made of."""
