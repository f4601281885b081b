"""A Docker Engine of a session's own, and the containers in it: what the backend ``docker`` is made of."""
