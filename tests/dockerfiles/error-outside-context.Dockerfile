#: error 3
FROM corpus
COPY ../outside.txt /
