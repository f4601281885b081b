#: error 3
FROM corpus
COPY one.txt
