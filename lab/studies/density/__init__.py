"""How many copies of an application fit on this host, and what the next one costs: docs/density.md."""

from lab.studies.base import Study

STUDY = Study(kind="density", command="density", sentence="Find out how many copies fit.")
