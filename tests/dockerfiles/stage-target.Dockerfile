#: --target stops early, and what comes after may be broken.
#: options --target wanted
FROM corpus AS wanted
COPY one.txt /
FROM wanted
RUN false
