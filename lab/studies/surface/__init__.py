"""How much of the host's kernel each backend's instances can reach, and do: docs/attack-surface.md."""

from lab.studies.base import Study

STUDY = Study(
    kind="surface",
    command="isolation surface",
    sentence="Count the attack surface: what of the host's kernel can be reached, and what is.",
)
