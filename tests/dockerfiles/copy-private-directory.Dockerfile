#: The new directory is no copy of the one whose content goes there.
FROM corpus
COPY private /new
