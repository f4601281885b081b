"""What commands ask of finished runs: a condition, what changed between two, anything in SQL."""
