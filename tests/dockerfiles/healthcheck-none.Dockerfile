#: NONE switches the base's off.
FROM corpus AS base
HEALTHCHECK CMD true
FROM base
HEALTHCHECK NONE
