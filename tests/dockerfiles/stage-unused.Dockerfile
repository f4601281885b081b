#: What the target does not need is not built.
FROM corpus AS unused
RUN false
FROM corpus
COPY one.txt /
