#: differs links-as-destinations file:/file file:/real/file
#: A destination's links are followed inside the image.
FROM corpus
RUN mkdir /real && touch /real/file && ln -s /real /link && ln -s real/file /file && ln -s ../../../real /climbs
COPY one.txt /link/
COPY two.txt /file
COPY dir /climbs/dir
