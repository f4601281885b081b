#: error 3
FROM corpus
RUN --mount=type=wrong,target=/x true
