"""The small process: it forks containers for a big threaded one."""
