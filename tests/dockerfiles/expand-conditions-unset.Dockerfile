#: Without the colon an empty variable is a value.
#: plain
FROM corpus
ENV SET=s EMPTY=
ENV A=${SET-d} B=${UNSET-d} C=${EMPTY-d}x D=${SET+a} E=${UNSET+a}x F=${EMPTY+a}x G=${SET?no} H=${SET:?no}
