#: .dockerignore: names, stars, whole directories, comments.
FROM corpus
COPY . /all/
