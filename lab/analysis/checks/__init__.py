"""What findings rest on: whether the host and the instruments did what the run says."""
