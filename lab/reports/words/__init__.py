"""What reports say, in sentences and in the tables that go with them."""
