#: Without a slash the destination of an archive is a directory all the same.
FROM corpus
ADD archive.tar.gz /new
