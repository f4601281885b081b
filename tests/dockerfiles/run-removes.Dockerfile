#: Deletions of files, directories and what is in them; a directory replaced by a file and the other way round.
FROM corpus
RUN mkdir -p /a/b /c/d && touch /a/f /a/b/g /c/e /x && mkdir /y
RUN rm /a/f && rm -r /c && mkdir /c && touch /c/new && rm /x && mkdir /x && rmdir /y && touch /y
RUN rm -r /a/b && touch /c/newer
