"""Many students' runs in one picture: taken in with care, read apart, compared within each host only."""
