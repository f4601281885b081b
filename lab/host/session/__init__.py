"""What a session of lab has made on the host, and what of it was left behind."""
