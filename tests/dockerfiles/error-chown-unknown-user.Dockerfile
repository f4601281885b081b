#: error 3
FROM corpus
COPY --chown=nobody one.txt /
