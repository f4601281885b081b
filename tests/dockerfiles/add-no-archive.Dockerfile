#: What only looks like an archive is copied.
FROM corpus
ADD broken.tar.gz one.txt dir /there/
