"""Running one copy of what a command line asks for: in the foreground, from a disk, or in the background."""
