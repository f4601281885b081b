#: Defaults and alternatives.
FROM corpus
ENV SET=s EMPTY=
ENV A=${SET:-d} B=${UNSET:-d} C=${EMPTY:-d} D=${SET:+a} E=${UNSET:+a}x F=${EMPTY:+a}x
