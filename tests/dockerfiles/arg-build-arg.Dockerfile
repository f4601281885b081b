#: --build-arg goes before defaults.
#: options --build-arg ONE=cli --build-arg TWO=cli
FROM corpus
ARG ONE=default
ARG TWO
ARG THREE=default
RUN echo "$ONE $TWO $THREE" > /seen
LABEL one=$ONE two=$TWO three=$THREE
