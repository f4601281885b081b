#: Quotes and escapes.
FROM corpus
ENV X=x
ENV A='$X' B="$X y" C=\$X D="\$X" E=a\ b F="a\"b" G=${X}y H="'$X'"
