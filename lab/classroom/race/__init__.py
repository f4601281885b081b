"""A race of backends: a model of its lanes, a recorded run as one, and how it is drawn for terminals and browsers."""
