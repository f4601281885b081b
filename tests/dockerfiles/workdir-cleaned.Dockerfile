#: differs cleaned-workdir config:WorkingDir
#: The path is kept without what means nothing.
FROM corpus
WORKDIR /a//b/
