"""What is asked from inside: a probe for each question, with its controls."""
