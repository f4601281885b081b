#: differs mount-points file:/var file:/var/cache
#: A cache is no part of the image, and the next step finds what is in it.
FROM corpus
RUN --mount=type=cache,id=corpus,target=/var/cache/it mkdir -p /var/cache/it && echo kept > /var/cache/it/f
RUN --mount=type=cache,id=corpus,target=/elsewhere cat /elsewhere/f > /seen
