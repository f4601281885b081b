#: Every kind of file: set-uid, sticky, FIFO, links of both kinds, empty directories.
FROM corpus
RUN mkdir -p /k/empty && cd /k && echo x > f && chmod 6755 f && ln f hard && ln -s nowhere soft && mkfifo fifo && \
    mkdir sticky && chmod 1777 sticky && chown -h 7:8 soft f
