"""A container's mechanisms added one at a time: what each step stops and costs: docs/ladder.md."""

from lab.studies.base import Study

STUDY = Study(
    kind="ladder",
    command="isolation ladder",
    sentence="Add a container's mechanisms one at a time, measure each step.",
)
