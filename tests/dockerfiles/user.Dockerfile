#: USER is kept as it was written.
FROM corpus
USER app:appers
