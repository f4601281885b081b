#: A global ARG is seen in a stage that declares it, with its value or another default; its end is the stage's.
ARG SHARED=global
ARG OTHER=global
FROM corpus AS first
ARG SHARED
ARG OTHER=mine
RUN echo "$SHARED $OTHER $NEVER" > /first
FROM corpus
RUN echo "[$SHARED]" > /second
COPY --from=first /first /
