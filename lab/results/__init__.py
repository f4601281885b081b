"""Samples and runs on disk: the only thing that joins measuring and reporting."""
