"""Looking after the store: its contents, differences, damage, and the removal of images."""
