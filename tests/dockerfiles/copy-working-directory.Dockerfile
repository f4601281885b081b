#: Destinations are relative to WORKDIR.
FROM corpus
WORKDIR /srv
COPY one.txt .
COPY one.txt two.txt ./
COPY one.txt sub/
COPY dir ../up
