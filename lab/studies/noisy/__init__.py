"""What one instance can do to another beside it, with limits and without: docs/noisy-neighbour.md."""

from lab.studies.base import Study

STUDY = Study(kind="noisy", command="noisy", sentence="Disturb an instance by a bad neighbour.")
