#: Files of a stage keep owner, mode and links; --chown and --chmod change them.
FROM corpus AS made
RUN mkdir -p /d/e && echo x > /d/f && chown 7:8 /d /d/f && chmod 2750 /d && ln -s f /d/l && ln /d/f /d/h
FROM corpus
COPY --from=made /d /kept
COPY --from=made --chown=app:appers /d /given
COPY --from=made /d/f /file
