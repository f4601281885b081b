"""Lessons whose questions a run answers, and all that a class needs besides.

Reads runs only, and measures nothing. Prints nothing: `lab/cli/classroom` does.
"""
