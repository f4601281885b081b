#: differs mode-of-an-empty-root file:/
#: An image of nothing but what is copied.
FROM scratch
COPY one.txt /
