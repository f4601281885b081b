#: error 3
FROM corpus
ENV A
