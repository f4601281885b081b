#: error 4
FROM corpus AS made
FROM corpus
COPY --from=made /nothing /
