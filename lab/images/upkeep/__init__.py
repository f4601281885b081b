"""Looking after the store: what is in it, what differs, what is damaged, what may go."""
