#: differs directories-of-volumes file:/c-d
#: Both forms; the same path counts once.
FROM corpus
VOLUME /a /b
VOLUME ["/c-d", "/a"]
