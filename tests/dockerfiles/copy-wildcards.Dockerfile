#: Go's patterns, name by name; a star takes hidden files too.
FROM corpus
COPY *.txt /star/
COPY ?ne.txt /question/
COPY [n-p]ne.txt /set/
COPY [^t]*.txt /not/
COPY d*/s*/*.txt /deep/
COPY wild/* /hidden/
