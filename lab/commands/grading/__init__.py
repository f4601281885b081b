"""Hand-ins executed and judged: two containers of lab's own for each, and what goes between them.

A hand-in's cells run in one, the teacher's tests in the other. The first holds no test, no expected answer and no
mark; what comes out of it are plain values, and the marks leave the second by a pipe that the first does not have.
"""
