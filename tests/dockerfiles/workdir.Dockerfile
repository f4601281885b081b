#: WORKDIR is made, relative ones follow the last, and a link is followed.
FROM corpus
RUN mkdir /real && ln -s /real /link
WORKDIR /a
WORKDIR b/../c
WORKDIR /link/d
RUN pwd > here
WORKDIR /a/b
