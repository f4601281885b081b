#: One ARG may declare several.
FROM corpus
ARG A=1 B="two words" C
RUN echo "$A|$B|$C" > /seen
