#: A range is its ports.
#: plain
FROM corpus
EXPOSE 8000-8002
