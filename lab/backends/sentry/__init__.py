"""gVisor's containers: where its program comes from, which platforms it has here, and one container of it."""
