#: Stages are found by name and by number.
FROM corpus AS first
RUN echo first > /made
FROM corpus AS second
RUN echo second > /made
FROM corpus
COPY --from=first /made /by-name
COPY --from=1 /made /by-number
