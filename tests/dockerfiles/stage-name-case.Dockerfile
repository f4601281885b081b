#: A stage is found by its name in any case.
#: plain
FROM corpus AS First
COPY one.txt /made
FROM corpus
COPY --from=FIRST /made /
