#: The predefined platform ARGs are there for who declares them.
FROM corpus
ARG TARGETOS
ARG TARGETARCH
RUN echo "$TARGETOS/$TARGETARCH [$BUILDOS]" > /seen
