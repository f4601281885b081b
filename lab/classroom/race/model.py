"""A race: what starts at the same moment, on one clock, and what every lane looks like at any moment.

Nothing is read or drawn here, and no clock runs. `recorded` makes a race of a run; `screen` draws one for a terminal,
`page` for a browser. How far a lane has come between two stations nobody knows: it is on its way, and not half-way.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

SLOWER = (100, 10)
"""By how much a second lane may slow down what nobody could follow; the first that fits is taken."""
LONGEST_SLOW_SECONDS = 15.0
"""A lane whose slowed start would last longer has no second one."""
NOT_MEASURED = "A demonstration, not a measurement: one start each; the next may end otherwise."


@dataclass(frozen=True, slots=True, kw_only=True)
class Station:
    """A phase that lanes reach, by the name it has in reports, in one word, and with its colours."""

    phase: str
    label: str
    short: str
    fill: str
    ink: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """A phase was reached ``at`` so many seconds after the request."""

    phase: str
    at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Lane:
    """One start. ``course`` has the phases that it passes, the last one being the finish; ``marks`` those that it has
    reached, by time. ``how`` says what executes its instructions; ``failed`` why it did not finish.
    """

    name: str
    title: str
    how: str
    colour: str
    symbol: str
    course: tuple[str, ...]
    marks: tuple[Mark, ...]
    failed: str = ""

    @property
    def finish(self) -> float | None:
        """Seconds after the request; None while it has not finished, or when it never did."""
        done = self.marks and self.course and self.marks[-1].phase == self.course[-1]
        return self.marks[-1].at if done else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """One start each. ``number`` is the block of the run, or counts live rounds."""

    number: int
    lanes: tuple[Lane, ...]

    @property
    def end(self) -> float:
        """When the last one finished, in seconds; 0 when none did."""
        return max((lane.finish or 0.0 for lane in self.lanes), default=0.0)

    def places(self) -> dict[str, int]:
        """The place of every lane that finished, by name; lanes that are equally fast share one."""
        times = {lane.name: lane.finish for lane in self.lanes if lane.finish is not None}
        return {name: 1 + sum(other < time for other in times.values()) for name, time in times.items()}

    def podium(self) -> list[tuple[int, Lane]]:
        """The lanes that finished, the first one first."""
        places = self.places()
        return sorted(
            ((places[lane.name], lane) for lane in self.lanes if lane.name in places), key=lambda each: each[0]
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Race:
    """All rounds. ``goal`` is what a lane finishes with, ``source`` where the times are from."""

    title: str
    goal: str
    source: str
    stations: tuple[Station, ...]
    rounds: tuple[Round, ...]

    @property
    def lanes(self) -> tuple[str, ...]:
        """The names of all lanes, in their order."""
        return tuple(dict.fromkeys(lane.name for each in self.rounds for lane in each.lanes))

    def wins(self) -> dict[str, int]:
        """How many rounds each lane was first in, those that are shared among them."""
        places = [each.places() for each in self.rounds]
        return {name: sum(each.get(name) == 1 for each in places) for name in self.lanes}


@dataclass(frozen=True, slots=True, kw_only=True)
class Slowed:
    """The lanes that are shown a second time, ``factor`` times slower: one factor for all, so that they compare."""

    factor: int
    names: frozenset[str]


def slowed(rounds: Iterable[Round]) -> Slowed:
    """Which lanes have a second one; none where each lasts long enough to be followed, or none has finished."""
    longest: dict[str, float] = {}
    for lane in (lane for each in rounds for lane in each.lanes):
        if lane.finish is not None:
            longest[lane.name] = max(longest.get(lane.name, 0.0), lane.finish)
    for factor in SLOWER:
        names = frozenset(name for name, seconds in longest.items() if seconds * factor <= LONGEST_SLOW_SECONDS)
        if names:
            return Slowed(factor=factor, names=names)
    return Slowed(factor=1, names=frozenset())


def lasts(one: Round, slow: Slowed) -> float:
    """Seconds until nothing moves any more: the slowed lanes too have finished."""
    return max(
        one.end,
        slow.factor * max((lane.finish or 0.0 for lane in one.lanes if lane.name in slow.names), default=0.0),
    )


class Standing(StrEnum):
    """What a station is to a lane at a moment."""

    PASSED = "passed"
    UNDERWAY = "underway"
    AHEAD = "ahead"
    UNTOLD = "untold"  # it must have been passed, and nobody has told when
    NONE = "none"  # not on its course


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One station of a lane. ``seconds``: what the way to it took, or has taken until now."""

    standing: Standing
    seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """A lane at a moment: a cell for each station of the race, and its stopwatch. ``place`` is 0 until it has one."""

    cells: tuple[Cell, ...]
    stopwatch: float
    place: int
    finished: bool

    @property
    def heading(self) -> int | None:
        """Which station it is on its way to, by its index."""
        found = (index for index, cell in enumerate(self.cells) if cell.standing is Standing.UNDERWAY)
        return next(found, None)


def view(lane: Lane, stations: Sequence[Station], at: float, places: Mapping[str, int]) -> View:
    """``lane`` at ``at`` seconds after the request; before 0 nothing has begun."""
    begun = at >= 0 and not (lane.failed and not lane.marks)
    passed = {mark.phase for mark in lane.marks if mark.at <= at}
    finished = lane.finish is not None and lane.finish <= at
    reached = max((place for place, phase in enumerate(lane.course) if phase in passed), default=-1)
    took, arrived = _ways(lane, passed)
    cells = []
    for phase in (station.phase for station in stations):
        if phase in passed:
            cells.append(Cell(standing=Standing.PASSED, seconds=took[phase]))
        elif phase not in lane.course:
            cells.append(Cell(standing=Standing.NONE))
        elif lane.course.index(phase) < reached:
            cells.append(Cell(standing=Standing.UNTOLD))
        elif begun and not finished and not lane.failed and lane.course.index(phase) == reached + 1:
            cells.append(Cell(standing=Standing.UNDERWAY, seconds=at - arrived))
        else:
            cells.append(Cell(standing=Standing.AHEAD))
    stopwatch = min(at, lane.finish) if lane.finish is not None else at
    return View(
        cells=tuple(cells),
        stopwatch=max(0.0, stopwatch) if begun else 0.0,
        place=places.get(lane.name, 0) if finished else 0,
        finished=finished,
    )


def _ways(lane: Lane, passed: set[str]) -> tuple[dict[str, float], float]:
    """How long each way took to a phase that was ``passed``, in the order of the course, and when the last one ended.
    A phase that was overtaken by a later one took no time of its own.
    """
    times = {mark.phase: mark.at for mark in lane.marks}
    took, before = {}, 0.0
    for phase in lane.course:
        if phase in passed:
            now = max(before, times[phase])
            took[phase], before = now - before, now
    return took, before


def stopwatch(seconds: float) -> str:
    """``0.049 s``, or of a minute and more ``1:23.4``."""
    if seconds >= 59.9995:
        return f"{int(round(seconds, 1) // 60)}:{round(seconds, 1) % 60:04.1f}"
    return f"{seconds:.3f} s"


def ordinal(place: int) -> str:
    """``1st``, ``2nd``, ``3rd``, ``4th`` …"""
    ending = "th" if place % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(place % 10, "th")
    return f"{place}{ending}"
