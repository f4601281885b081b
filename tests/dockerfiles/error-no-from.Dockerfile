#: error 3
#: differs instructions-before-from
RUN echo
FROM corpus
