#: Comments, blank lines, indentation, tabs.

# a comment
FROM corpus
   # an indented one
	COPY one.txt \
# in between
   /a
RUN echo "#" > /hash # the shell's comment
