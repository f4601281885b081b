#: --parents keeps the directories above, from /./ on.
#: plain
FROM corpus
COPY --parents dir/sub/c.txt one.txt /whole/
COPY --parents dir/./sub/deep/d.txt /pivot/
COPY --parents **/*.txt /all/
