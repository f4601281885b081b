"""The disk space of the store: who uses what of it, and what is made beside it before it moves in."""
