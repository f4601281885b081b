#: A directory that a pattern matches gives its content.
FROM corpus
COPY dir/* /flat/
