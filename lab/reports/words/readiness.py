"""What an instance does when the clock of a start stops: the verbs of the verdict, by milestone."""

from __future__ import annotations

from collections.abc import Mapping

from lab.analysis.readiness import until
from lab.model import Milestone
from lab.results.record import Run

ACHIEVES: Mapping[Milestone, str] = {
    Milestone.CORRECT_ANSWER: "gives its first correct answer",
    Milestone.ANSWER: "gives its first answer",
    Milestone.PORT_OPEN: "has its port open",
    Milestone.HEALTHY: "is healthy by its own check",
    Milestone.LOG_LINE: "has written the awaited line",
    Milestone.STARTED: "has started",
    Milestone.DONE: "is done",
}


def achieves(run: Run) -> str:
    """What the leading quantity waits for, as a predicate: ``gives its first correct answer``."""
    return ACHIEVES[until(run)]
