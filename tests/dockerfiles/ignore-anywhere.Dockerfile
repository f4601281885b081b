#: .dockerignore: ** is any number of directories.
FROM corpus
COPY dir /dir/
COPY wild /wild/
