#: An ARG before FROM names the base; a build argument would replace it.
ARG NAME=nothing
ARG BASE=${NAME:+corpus}
FROM ${BASE}
COPY one.txt /
