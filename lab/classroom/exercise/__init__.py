"""Exercises in notebooks: the student's version of a teacher's, whose hand-ins are whose, and what they are worth.

The format is nbgrader's (its documentation, "Creating and grading assignments" and "Cell metadata"). What executes
hand-ins is above this package: `lab.commands.grading`.
"""
