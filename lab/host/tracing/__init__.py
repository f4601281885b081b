"""The kernel's tracing: recordings, and the ring buffer that they are read from."""
