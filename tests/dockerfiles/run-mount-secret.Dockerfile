#: differs mount-points file:/run/secrets
#: A secret is there for the step alone, where asked for or below /run/secrets.
#: options --secret id=token,src={context}/one.txt
FROM corpus
RUN --mount=type=secret,id=token cat /run/secrets/token > /default
RUN --mount=type=secret,id=token,target=/etc/token,mode=0444 cat /etc/token > /target
RUN --mount=type=secret,id=absent test ! -e /run/secrets/absent
