#: differs chown-of-an-archive file:/new/implied/deep/f file:/new/top/attributes file:/new/top/setuid file:/new/top/soft
#: --chown is for what is in the archive, too.
FROM corpus
ADD --chown=7:8 archive.tar.gz /new/
