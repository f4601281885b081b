"""A container's start as a program of system calls, and the process that carries it out."""
