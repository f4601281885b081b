#: A link that is named is followed, links in a directory stay.
FROM corpus
COPY link.txt /followed
COPY dirlink /content/
COPY dirlink/a.txt /through
COPY dir /dir
