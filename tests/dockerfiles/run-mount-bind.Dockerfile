#: differs mount-points file:/mnt
#: Files of the context and of a stage, read-only or for the step alone; nothing of it stays.
FROM corpus AS other
RUN echo other > /file
FROM corpus
RUN --mount=type=bind,source=dir,target=/mnt/dir --mount=type=bind,from=other,source=/file,target=/mnt/file \
    cat /mnt/dir/a.txt /mnt/file > /seen; touch /mnt/dir/x 2> /dev/null || echo read-only >> /seen
