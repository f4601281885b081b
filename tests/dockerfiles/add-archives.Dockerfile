#: Archives are unpacked whatever their name and compression, with owners, modes, links and attributes.
FROM corpus
ADD archive.tar /tar/
ADD archive.tar.gz /gz/
ADD archive.tar.bz2 /bz2/
ADD archive.tar.xz /xz/
ADD archive.renamed /renamed/
COPY archive.tar.gz /whole
