"""Measuring again and again: what a plan says, why it is time, and what is done then."""
