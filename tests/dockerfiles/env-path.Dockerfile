#: The base's PATH is extended.
FROM corpus
ENV PATH=/opt/bin:$PATH
