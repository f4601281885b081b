"""Programs of others that make containers: where they are, that they stay what they were, and how they are called."""
