"""The host's own: system calls, control groups, the clock, commands, the ledger."""
