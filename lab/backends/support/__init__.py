"""What backends have in common, and what each of them is made of."""
