"""One application behind every boundary: what each costs, and what it stops: docs/reading-a-report.md."""

from lab.studies.base import Study

STUDY = Study(kind="compare", command="compare", sentence="Measure one application behind every boundary.")
