#: differs mode-of-an-empty-root file:/
#: COPY --from an image that is no stage.
FROM scratch
COPY --from=corpus /etc/passwd /etc/
