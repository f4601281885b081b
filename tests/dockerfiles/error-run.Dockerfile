#: error 5
FROM corpus
RUN true

RUN echo begun; exit 3
