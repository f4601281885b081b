#: Octal modes, of files and of directories.
FROM corpus
COPY --chmod=640 one.txt /file
COPY --chmod=4755 script.sh /setuid
ADD --chmod=600 one.txt /added
