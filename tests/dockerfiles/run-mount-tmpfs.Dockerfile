#: A tmpfs takes what a step writes.
FROM corpus
RUN --mount=type=tmpfs,target=/scratch mkdir -p /scratch && echo x > /scratch/f && cp /scratch/f /seen
