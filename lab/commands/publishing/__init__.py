"""A static site of all results, written into a folder: again and again, only what is new, never half."""
