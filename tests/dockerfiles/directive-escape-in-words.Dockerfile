# escape=`
#: differs escape-in-words config:Env
#: The other escape character in words, too.
FROM corpus
ENV X=`$Y Z=a`\b
