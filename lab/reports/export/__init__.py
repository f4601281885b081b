"""A run for other programs: files of many kinds, and trace events."""
