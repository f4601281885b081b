#: differs shell-of-cmd config:Entrypoint
#: SHELL and ENTRYPOINT in shell form.
FROM corpus
SHELL ["/bin/sh", "-x", "-c"]
ENTRYPOINT run it
