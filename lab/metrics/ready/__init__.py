"""Whether an instance is there, and whether it is well: asked from outside, or by its own health check."""
