#: Extended attributes of the user's own.
FROM corpus
COPY attributes /attributes
