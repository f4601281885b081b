#: --link gives the same files, whatever is below.
#: plain
FROM corpus
COPY --link one.txt /srv/
COPY --link --chown=7:8 dir /other/dir
