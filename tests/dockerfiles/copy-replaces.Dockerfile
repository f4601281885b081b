#: A file or link is replaced, a directory is merged.
FROM corpus
RUN mkdir -p /d/sub && echo old > /d/a.txt && echo kept > /d/kept && ln -s kept /d/link && chmod 700 /d/sub
COPY dir /d
