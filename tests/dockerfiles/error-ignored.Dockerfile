#: error 3
FROM corpus
COPY dir/a.txt /
