"""Options that several commands have: what they mean, and what refuses them."""
