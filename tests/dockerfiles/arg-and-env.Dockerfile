#: ENV wins over ARG, whichever comes first; an ARG is no part of the configuration.
#: options --build-arg B=cli
FROM corpus
ARG A=argument
ENV A=environment
ENV B=environment
ARG B=argument
ARG C=argument
RUN echo "$A $B $C" > /seen
