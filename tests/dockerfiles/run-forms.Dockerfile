#: Shell and exec form, continuation lines with comments between.
FROM corpus
RUN echo a > /a && \
    # a comment
    echo b > /b && \

    echo c > /c
RUN ["/bin/sh", "-c", "echo '$0' > /exec"]
run echo lower > /case
