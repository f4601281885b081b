#: Shell form goes through the shell; the last one counts.
FROM corpus
CMD ["first"]
CMD serve --now "$HOME"
