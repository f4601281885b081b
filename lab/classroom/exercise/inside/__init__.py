"""What runs in the containers that grade: the standard library alone, and nothing else of lab's."""
