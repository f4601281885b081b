# escape=`
#: Another escape character.
FROM corpus
RUN echo a > /a && `
    echo b\\c > /b
