"""What every page says of a run that was measured in a machine which is emulated itself."""

from __future__ import annotations

from lab.host.survey.virtualisation import NESTED
from lab.results.record import Run


def not_to_conclude(run: Run) -> tuple[str, ...]:
    """A point for the section of that name; none for a run on hardware or in a virtual machine."""
    if not run.emulated:
        return ()
    return (
        f"How fast anything is, bare processes included. {NESTED}: the host was {run.host['platform']['title']}. "
        "What was counted, stopped and refused is right.",
    )
