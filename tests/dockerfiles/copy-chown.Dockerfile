#: By name, number, both; what is made on the way belongs to the same.
FROM corpus
COPY --chown=app one.txt /name/
COPY --chown=7 one.txt /number/
COPY --chown=app:appers one.txt /both/
COPY --chown=7:0 dir /mixed
COPY --chown=12:34 one.txt /unknown/deep/
ADD --chown=app:0 one.txt /added
