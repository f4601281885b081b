"""What the host and a guest tell each other over a machine's ports: output, commands, keys."""
