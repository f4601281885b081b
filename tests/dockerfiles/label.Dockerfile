#: Several, quoted, on several lines; --label comes on top.
#: options --label cli=yes --label A=cli
FROM corpus
LABEL A=1 "b c"="d e" \
      f='g'
LABEL org.example.long="one \
two"
