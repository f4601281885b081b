#: Exec form, no options.
FROM corpus
HEALTHCHECK CMD ["/bin/true", "a b"]
