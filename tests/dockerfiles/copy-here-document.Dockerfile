#: Here-documents as files, expanded unless their delimiter is quoted.
#: plain
FROM corpus
ENV NAME=world
COPY <<hello.txt <<'raw.txt' /docs/
hello $NAME \$NAME "${NAME}"
hello.txt
hello $NAME
raw.txt
COPY --chmod=755 --chown=7:8 <<-EOF /script
	#!/bin/sh
	echo x
EOF
