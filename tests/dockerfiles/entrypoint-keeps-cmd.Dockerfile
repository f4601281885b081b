#: A CMD of the stage's own stays, before or after.
FROM corpus
CMD ["argument"]
ENTRYPOINT ["/bin/echo", "x"]
