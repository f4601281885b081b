"""The terminal: keys, the one that an application inside an instance takes over, and rows printed on it."""
