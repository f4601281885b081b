#: .dockerignore: the last match decides.
FROM corpus
COPY . /all/
