#: Variables in every instruction that expands them.
FROM corpus
ARG NAME=one
ENV PORT=8000 WHERE=/srv/app WHO=app SIGNAL=SIGINT
WORKDIR $WHERE
COPY ${NAME}.txt ${WHERE}/copied/
ADD ${NAME}.txt added
EXPOSE ${PORT} ${PORT}/udp
LABEL where=$WHERE "${NAME}"=two
VOLUME $WHERE/data
STOPSIGNAL $SIGNAL
USER $WHO
