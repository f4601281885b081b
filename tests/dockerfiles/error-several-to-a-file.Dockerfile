#: error 4
#: differs several-sources-to-a-file
FROM corpus
COPY one.txt two.txt /file
