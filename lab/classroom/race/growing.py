"""A start that happens now, as a lane: what was heard of it so far, and what it is still expected to pass."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence

from lab.analysis.quantities import QUANTITIES
from lab.analysis.readiness import NOTHING_SAID
from lab.classroom.race.model import Lane, Mark, Race, Round, Station
from lab.classroom.race.recorded import ANSWERS, ORDER, look, station
from lab.model import Kernel, Milestone, Phase
from lab.reports.material import stamp
from lab.results.record import Arm

BEFORE: Mapping[Kernel, tuple[Phase, ...]] = {
    Kernel.HOST: (Phase.ISOLATED, Phase.INIT, Phase.EXECUTED),
    Kernel.OWN: (Phase.ISOLATED, Phase.KERNEL, Phase.INIT, Phase.EXECUTED),
    Kernel.USER_SPACE: (Phase.ISOLATED, Phase.EXECUTED),
    Kernel.USER_MODE: (Phase.ISOLATED, Phase.KERNEL, Phase.INIT, Phase.EXECUTED),
}
"""What a start passes until its application runs, by the kernel that serves it."""


def course(kernel: Kernel, until: Milestone, *, asked: bool) -> tuple[str, ...]:
    """The phases that a start is expected to pass; ``asked`` says whether its port is."""
    listens = (Phase.LISTENING,) if asked else ()
    answers = () if until in NOTHING_SAID else (Phase.RESPONDED,)
    return tuple(phase.value for phase in (*BEFORE[kernel], *listens, *answers))


class Starting:
    """One start. Thread-safe: it hears from the threads that see the phases, and is looked at by another."""

    def __init__(self, arm: Arm, expected: Sequence[str]) -> None:
        self._arm = arm
        self._expected = tuple(expected)
        self._stamps: dict[str, float] = {}
        self._failed = ""
        self._lock = threading.Lock()

    def marked(self, phase: Phase, at: float) -> None:
        """``phase`` was seen ``at`` that moment of the one clock."""
        with self._lock:
            self._stamps[phase.value] = at

    def failed(self, why: str) -> None:
        """It will not finish."""
        with self._lock:
            self._failed = why

    def lane(self) -> Lane:
        """As it is known now. What it did not pass, though it was expected to, is not on its course in the end."""
        with self._lock:
            stamps, why = dict(self._stamps), self._failed
        requested = stamps.get(Phase.REQUESTED.value)
        heard = [phase for phase in ORDER if phase in stamps and self._passes(phase)]
        goal = self._expected[-1]
        done = goal in heard
        passes = heard if done else [each for each in ORDER if each in heard or each in self._expected]
        at, marks = 0.0, []
        for phase in heard if requested is not None else ():
            assert requested is not None
            at = max(at, stamps[phase] - requested)  # as `lab.metrics.boot.segments` has it
            marks.append(Mark(phase=phase, at=at))
        return Lane(
            name=self._arm.label,
            title=self._arm.title,
            how=stamp(self._arm),
            course=tuple(passes),
            marks=tuple(marks),
            failed="" if done else why,
            **look(self._arm),
        )

    def _passes(self, phase: str) -> bool:
        """Whether it comes no later than what it finishes with."""
        return ORDER.index(phase) <= ORDER.index(self._expected[-1])


def race(title: str, goal: str, source: str, until: Milestone, rounds: Sequence[Round]) -> Race:
    """What was started until now as a race, whose stations are those that some lane passes or is to pass."""
    passed = {phase for each in rounds for lane in each.lanes for phase in lane.course}
    stations = tuple(_station(phase, until) for phase in ORDER if phase in passed)
    return Race(title=title, goal=goal, source=source, stations=stations, rounds=tuple(rounds))


def _station(phase: str, until: Milestone) -> Station:
    label = str(until) if phase == Phase.RESPONDED else QUANTITIES[f"boot.{phase}"].label
    return station(phase, label, answers=until in ANSWERS)
