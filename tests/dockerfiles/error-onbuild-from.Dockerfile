#: error 3
FROM corpus
ONBUILD FROM corpus
