"""The container's root file system: its layers, its mounts, its console, and how it is entered."""
