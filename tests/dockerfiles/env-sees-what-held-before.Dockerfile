#: All of an instruction is expanded with what held before it.
FROM corpus
ENV abc=hello
ENV abc=bye def=$abc
ENV ghi=$abc
