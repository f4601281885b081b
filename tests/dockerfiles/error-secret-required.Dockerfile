#: error 3
FROM corpus
RUN --mount=type=secret,id=absent,required=true true
