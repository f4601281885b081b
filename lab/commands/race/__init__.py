"""A race on the command line: its keys, its screen, and backends that start at the same moment."""
