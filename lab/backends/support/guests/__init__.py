"""What the backends with a kernel of their own share: a guest as an instance, and what of it may be varied."""
