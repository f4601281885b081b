"""What the instances of a run were waited for, and how its quantities are therefore called.

"Time to first answer" needs an answer. Of an application that was asked nothing, of one whose port was only knocked
at, and of a batch job, the same samples have other names, here, for everything that shows them.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from lab.analysis.quantities import QUANTITIES, Quantity
from lab.model import Milestone
from lab.results.record import Run

PHRASES: Mapping[Milestone, str] = MappingProxyType(
    {
        Milestone.CORRECT_ANSWER: "the first correct answer",
        Milestone.ANSWER: "the first answer",
        Milestone.PORT_OPEN: "its port accepts a connection",
        Milestone.LOG_LINE: "the line in its log that says so",
        Milestone.HEALTHY: "its image's HEALTHCHECK succeeds",
        Milestone.STARTED: "its execve has happened",
        Milestone.DONE: "it has ended by itself, with exit code 0",
    }
)
"""What follows "from the request until"."""

KINDS = {
    "TcpReadiness": Milestone.PORT_OPEN,
    "LogReadiness": Milestone.LOG_LINE,
    "TalkReadiness": Milestone.CORRECT_ANSWER,
    "HealthReadiness": Milestone.HEALTHY,
    "StartedReadiness": Milestone.STARTED,
    "DoneReadiness": Milestone.DONE,
}
NOTHING_SAID = (Milestone.PORT_OPEN, Milestone.STARTED, Milestone.DONE)
"""With these an instance is ready by a phase that has a name of its own: a segment after it would be of no time."""


def until(run: Run) -> Milestone:
    """What the run's headline time is the time of; for a run that does not record it, as its readiness implies."""
    return until_of(run.settings)


def until_of(settings: Mapping[str, Any]) -> Milestone:
    """The same by the run's settings alone."""
    stated = settings.get("until")
    return Milestone(stated) if stated in list(Milestone) else _implied(settings.get("readiness"))


def _implied(readiness: Any) -> Milestone:
    if not isinstance(readiness, Mapping):
        return Milestone.STARTED
    if readiness.get("kind") == "HttpReadiness":
        return Milestone.CORRECT_ANSWER if readiness.get("body") else Milestone.ANSWER
    return KINDS.get(str(readiness.get("kind")), Milestone.STARTED)


def boots_until(run: Run) -> Milestone:
    """What ``boot.total`` of the run ends with. A batch job has booted when it has started."""
    reached = until(run)
    return Milestone.STARTED if reached is Milestone.DONE else reached


def leading(run: Run) -> str:
    """The quantity that tells how long it takes: of a batch job until it is done, else until it is ready."""
    return "job.total" if until(run) is Milestone.DONE else "boot.total"


def phrase(run: Run) -> str:
    """What the leading quantity ends with, after "from the request until"."""
    return PHRASES[until(run)]


def until_ready(run: Run) -> str:
    """What ``boot.total`` ends with, after "from the request until"."""
    return PHRASES[boots_until(run)]


def title(run: Run) -> str:
    """The name of the leading quantity: ``time until first answer``."""
    return f"time until {until(run)}"


def called(quantity: str, run: Run) -> Quantity | None:
    """``quantity`` as it is called in this run; None for one that is not known."""
    known = QUANTITIES.get(quantity)
    reached = boots_until(run)
    match quantity:
        case "boot.total":
            label, definition = f"time until {reached}", f"from the request until {PHRASES[reached]}"
        case "boot.responded":
            label, definition = str(reached), f"until {PHRASES[reached]}"
        case "cpu.boot":
            label = f"CPU until {reached}"
            definition = f"CPU seconds the host spent from the request until {PHRASES[reached]}"
        case _:
            return known
    key = known.key if known else False
    return Quantity(name=quantity, label=label, definition=definition, unit="seconds", key=key)


def is_empty_segment(quantity: str, run: Run) -> bool:
    """Whether ``quantity`` is the last segment of a boot that ends with the phase before it."""
    return quantity == "boot.responded" and boots_until(run) in NOTHING_SAID
