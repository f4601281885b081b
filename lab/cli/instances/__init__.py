"""Commands that run instances, and those about detached ones."""
