#: A stage starts from another with its files and configuration.
FROM corpus AS base
ENV A=1
WORKDIR /srv
CMD ["base"]
RUN echo base > made
FROM base
COPY one.txt .
ENTRYPOINT ["mine"]
