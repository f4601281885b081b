#: differs shell-of-cmd config:Cmd
#: SHELL is for the RUN, CMD and ENTRYPOINT that follow it.
FROM corpus
SHELL ["/bin/sh", "-ec"]
RUN echo "$-" | tr -dc e > /flags
CMD run
