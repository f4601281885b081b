#: What is made for WORKDIR belongs to the USER.
FROM corpus
USER app
WORKDIR /made/deep
