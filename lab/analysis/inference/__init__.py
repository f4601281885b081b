"""Intervals, tests, and the judge of all claims."""
