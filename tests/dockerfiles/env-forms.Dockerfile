#: Several on a line, quoted, escaped, and the old form.
FROM corpus
ENV A=1 B="2 3" C=4\ 5 \
    D='6'
ENV OLD the  rest of the   line
