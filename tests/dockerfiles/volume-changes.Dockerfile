#: differs changes-to-a-volume file:/data/f
FROM corpus
RUN mkdir /data && echo old > /data/f
VOLUME /data
RUN echo new > /data/f
