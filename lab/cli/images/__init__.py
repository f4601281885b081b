"""Commands about images and scenarios."""
