#: Names that are no UTF-8, long ones, and a FIFO.
FROM corpus
COPY special /special
