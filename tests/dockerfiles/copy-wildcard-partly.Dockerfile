#: differs a-pattern-without-a-match
#: plain
FROM corpus
COPY one.txt nothing*.txt /there/
