#: error 3
FROM corpus
COPY nothing*.txt /there/
