"""Commands about this host and about lab itself."""
