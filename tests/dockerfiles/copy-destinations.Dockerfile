#: A file as a name, into a directory, into what is one already.
FROM corpus
RUN mkdir /there
COPY one.txt /new
COPY one.txt /made/
COPY one.txt /there
COPY one.txt /deep/er/name
COPY one.txt two.txt /both/
