#: Every option.
FROM corpus
HEALTHCHECK --interval=1m30s --timeout=500ms --start-period=2s --retries=5 CMD test -e /tmp || exit 1
