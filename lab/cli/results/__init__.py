"""Commands about runs that were measured."""
