#: error 3
FROM corpus
RUM echo
