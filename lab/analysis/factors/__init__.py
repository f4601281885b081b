"""What the levels of factors do, and which of them interact."""
