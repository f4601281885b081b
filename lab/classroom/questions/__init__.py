"""Lessons: questions that a run answers, with the texts around them."""
