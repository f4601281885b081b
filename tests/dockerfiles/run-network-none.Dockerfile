#: --network=none leaves the loopback device alone.
#: plain
FROM corpus
RUN --network=none tail -n +3 /proc/net/dev | cut -d: -f1 | tr -d ' ' > /seen
