#: A download's checksum.
#: options --build-arg PORT={port}
#: plain
FROM corpus
ARG PORT
ADD --checksum=sha256:4355a46b19d348dc2f57c046f8ef63d4538ebb936000f3c9ee954a27460dd865 http://127.0.0.1:$PORT/one.txt /f
