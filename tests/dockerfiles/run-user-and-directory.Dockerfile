#: RUN has the USER, the directory and HOME of its place.
FROM corpus
WORKDIR /work
RUN chmod 777 .
USER app
RUN id -u > id; id -g >> id; pwd >> id; echo $HOME >> id
USER 12:34
RUN id -u > ids; id -g >> ids
