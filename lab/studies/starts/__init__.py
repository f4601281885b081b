"""How long many starts take: the usual one, the slowest, and many at once: docs/starts.md."""

from lab.studies.base import Study

STUDY = Study(kind="starts", command="starts", sentence="Start many copies, and show the slow ones.")
