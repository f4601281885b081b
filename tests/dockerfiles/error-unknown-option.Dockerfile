#: error 3
FROM corpus
COPY --wrong=x one.txt /
