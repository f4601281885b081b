#: The mode is given to all that is copied, not to what is made on the way.
FROM corpus
COPY --chmod=700 dir /new/dir
