#: Deprecated, and still the author.
FROM corpus
MAINTAINER Somebody <somebody@example.com>
