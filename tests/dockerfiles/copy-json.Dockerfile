#: Names with spaces want the JSON form.
FROM corpus
COPY ["with space.txt", "one.txt", "/a b/"]
ADD ["with space.txt", "/added name"]
