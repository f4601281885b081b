#: error 0
#: options --target nowhere
FROM corpus
