#: error 3
FROM corpus
RUN ["/no/such/program"]
