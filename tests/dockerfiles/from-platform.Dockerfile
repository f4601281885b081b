#: This machine's own platform may be said.
FROM --platform=$BUILDPLATFORM corpus
COPY one.txt /
