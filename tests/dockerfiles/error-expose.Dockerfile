#: error 4
#: differs ports-that-are-none
FROM corpus
EXPOSE web
