#: error 4
FROM corpus
COPY one.txt /
COPY missing.txt /
