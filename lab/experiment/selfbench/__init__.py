"""lab measured beside what it is made of."""
