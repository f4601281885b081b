#: Prefixes, suffixes and replacements.
#: plain
FROM corpus
ENV FILE=foo.tar.gz TREE=a/b/c
ENV A=${FILE%.*} B=${FILE%%.*} C=${FILE#*.} D=${FILE##*.} E=${FILE/o/0} F=${FILE//o/0} G=${TREE//\//-} H=${FILE%zip}
