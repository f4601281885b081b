#: A file with two names.
FROM corpus
COPY hard /hard
