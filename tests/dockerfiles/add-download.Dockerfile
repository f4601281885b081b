#: A download is a file of mode 0600, called as its address says.
#: options --build-arg PORT={port}
FROM corpus
ARG PORT
ADD http://127.0.0.1:$PORT/one.txt /as/name
ADD http://127.0.0.1:$PORT/archive.tar.gz /into/
