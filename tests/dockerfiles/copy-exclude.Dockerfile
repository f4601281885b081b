#: --exclude leaves out of a directory, or of what a pattern matches.
#: plain
FROM corpus
COPY --exclude=*.log --exclude=sub dir /a
COPY --exclude=**/d.txt dir /b
COPY --exclude=t* *.txt /c/
