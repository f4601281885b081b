"""What a command does that waits for its container: the conversation with its process, signals, the terminal."""
