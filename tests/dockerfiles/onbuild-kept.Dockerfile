#: Triggers are kept as they were written.
FROM corpus
ONBUILD RUN echo   "two  spaces" && true
ONBUILD ADD . /src
