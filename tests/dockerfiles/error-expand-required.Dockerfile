#: error 4
FROM corpus
ARG A
LABEL a=${A:?is needed}
