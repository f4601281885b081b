#: error 3
FROM corpus
SHELL /bin/sh -c
