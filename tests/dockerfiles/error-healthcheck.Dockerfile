#: error 3
FROM corpus
HEALTHCHECK --interval=soon CMD true
