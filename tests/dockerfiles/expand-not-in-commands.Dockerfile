#: CMD, ENTRYPOINT, HEALTHCHECK and RUN are left to the shell.
FROM corpus
ENV X=build
RUN X=shell; echo $X > /seen
RUN ["/bin/sh", "-c", "echo $X > /exec"]
ENTRYPOINT ["/bin/echo", "$X"]
CMD echo $X
