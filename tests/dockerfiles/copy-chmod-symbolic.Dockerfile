#: Symbolic modes, as chmod(1) has them.
#: plain
FROM corpus
COPY --chmod=u=rw,go= one.txt /a
COPY --chmod=a+x one.txt /b
COPY --chmod=go-r,u+s script.sh /c
COPY --chmod=u=rwX,go=rX dir /d
