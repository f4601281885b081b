#: A name or a number.
FROM corpus
STOPSIGNAL SIGUSR1
