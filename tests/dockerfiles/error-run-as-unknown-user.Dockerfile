#: error 4
FROM corpus
USER ghost
RUN id
