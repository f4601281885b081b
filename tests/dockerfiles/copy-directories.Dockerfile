#: A directory's content goes, not the directory itself.
FROM corpus
RUN mkdir /there && chmod 711 /there
COPY dir /new
COPY dir/ /slash/
COPY dir /there
COPY dir/sub/deep/.. /up/
