#: error 4
FROM corpus
COPY one.txt /file
COPY dir /file
