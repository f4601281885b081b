"""The side of lab: it asks the small process for containers, and owns what was made for each."""
