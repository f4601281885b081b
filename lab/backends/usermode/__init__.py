"""User-mode Linux: its program, what its guest is told, how its process is started and shut in."""
