# syntax=docker/dockerfile:1
# check=skip=all
#: Which frontend to use, and which checks to leave out, is nothing to do with the image.
FROM corpus
COPY one.txt /
