#: Triggers are carried out by the next image, and not handed on.
FROM corpus AS base
ONBUILD COPY one.txt /triggered
ONBUILD RUN echo ran > /ran
ONBUILD ENV TRIGGERED=yes
FROM base
COPY two.txt /
