"""Lines through nights that may be compared, where each line changed, and what else was recorded differently there.

Only runs share a line whose scenario, host, conditions and settings are the same, and which ended by plan: of an arm
with one backend, accelerator and level of each factor, one quantity in one state. What else changed between the last
night before and the first one after is a coincidence: nothing here knows a cause.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import groupby
from typing import Any

import numpy as np

from lab.analysis.history.changes import FEWEST, change_points, dependence
from lab.analysis.history.facts import About, changed
from lab.analysis.history.points import Point
from lab.analysis.inference.estimate import estimates_apart
from lab.analysis.inference.judge import ALPHA
from lab.analysis.inference.statistics import Floats
from lab.analysis.quantities import QUANTITIES, label, preferred

TOGETHER = 2
"""Changes of one scenario on one host, no more runs apart than this, are told as one: no line knows its place
better.
"""

AROUND = 2
"""What else changed is told up to so many runs away, with how far: where a line changed is an estimate too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """``place`` is the first point of its line after it. ``ratio`` is that of the geometric means of all nights
    between the changes before and behind it, with an interval of 95 % (Welch); NaN where a value is not above zero.
    ``direction``: worse, better or different, as nobody says of every quantity which is better.
    """

    place: int
    before: float
    after: float
    ratio: float
    low: float
    high: float
    direction: str


@dataclass(slots=True, kw_only=True)
class Line:
    """``runs`` are indices into all runs, in the order of time; ``points`` are theirs, each with a median."""

    id: str
    scenario: str
    host: str
    backend: str
    accelerator: str
    arm: str
    quantity: str
    state: str
    unit: str
    title: str
    conditions: dict[str, str]
    runs: list[int] = field(default_factory=list)
    points: list[Point] = field(default_factory=list)
    changes: tuple[Change, ...] = ()
    dependence: float = math.nan
    dependent: bool = False

    @property
    def values(self) -> Floats:
        return np.array([point.median for point in self.points], dtype=np.float64)


@dataclass(frozen=True, slots=True, kw_only=True)
class Coincidence:
    """A fact that was recorded differently, so many runs after the event (0: at the same one; negative: before)."""

    name: str
    before: str
    after: str
    away: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Changes of several lines at the same place; ``before`` and ``after`` are the runs at either side of it."""

    id: str
    scenario: str
    host: str
    before: int
    after: int
    changes: tuple[tuple[Line, Change], ...]
    coincidences: tuple[Coincidence, ...]


def lines_of(runs: Sequence[About], observed: Sequence[Sequence[Point]]) -> list[Line]:
    """All lines through ``runs``, which are in the order of time, and what was ``observed`` in each."""
    found: dict[str, Line] = {}
    for index, (run, points) in enumerate(zip(runs, observed, strict=True)):
        if run.kind or not run.complete:
            continue
        for point in points:
            if point.median is None or point.arm not in run.arms:
                continue
            key = _key(run, point)
            if key not in found:
                found[key] = _line(key, run, point)
            found[key].runs.append(index)
            found[key].points.append(point)
    return sorted(
        found.values(), key=lambda each: (each.scenario, each.host, each.arm, each.quantity, each.state, each.id)
    )


def find_changes(lines: Sequence[Line], places: Callable[[Floats, float], tuple[int, ...]] = change_points) -> float:
    """Find those of each line, and return the level at which each was tested: `ALPHA` by the number of lines."""
    tested = [each for each in lines if len(each.runs) >= 2 * FEWEST]
    level = ALPHA / max(1, len(tested))
    for line in tested:
        values = line.values
        found = places(values, level)
        line.changes = tuple(_change(line, values, (0, *found, len(values)), at) for at in range(1, len(found) + 1))
        line.dependence, line.dependent = dependence(values, found)
    return level


def events_of(runs: Sequence[About], lines: Sequence[Line]) -> list[Event]:
    """The changes of all lines, put together where they are of one scenario on one host and no more than `TOGETHER`
    runs apart; the newest first.
    """
    order = {index: place for _, group in _sequences(runs).items() for place, index in enumerate(group)}
    changes = [
        ((line.scenario, line.host), order[line.runs[change.place]], line, change)
        for line in lines for change in line.changes
    ]  # fmt: skip
    changes.sort(key=lambda each: (*each[:2], each[2].id))
    events = []
    for where, group in groupby(changes, key=lambda each: each[0]):
        sequence = _sequences(runs)[where]
        events += [_event(where, sequence, together, runs) for together in _together(list(group))]
    return sorted(events, key=lambda each: (runs[each.after].started, each.id), reverse=True)


def _sequences(runs: Sequence[About]) -> dict[tuple[str, str], list[int]]:
    found: dict[tuple[str, str], list[int]] = {}
    for index, run in enumerate(runs):
        if run.complete and not run.kind:
            found.setdefault((run.scenario, run.host), []).append(index)
    return found


def _together(changes: Sequence[tuple[Any, int, Line, Change]]) -> Iterator[list[tuple[int, Line, Change]]]:
    group: list[tuple[int, Line, Change]] = []
    for _, place, line, change in changes:
        if group and place - group[0][0] > TOGETHER:
            yield group
            group = []
        group.append((place, line, change))
    if group:
        yield group


def _event(
    where: tuple[str, str], sequence: list[int], group: list[tuple[int, Line, Change]], runs: Sequence[About]
) -> Event:
    place = Counter(each for each, _, _ in group).most_common(1)[0][0]
    arms = list(dict.fromkeys(line.arm for _, line, _ in group))
    coincidences = [
        Coincidence(name=name, before=before, after=after, away=away)
        for away in sorted(range(-AROUND, AROUND + 1), key=abs)
        if 0 < place + away < len(sequence)
        for name, before, after in changed(runs[sequence[place + away - 1]], runs[sequence[place + away]], arms)
    ]
    return Event(
        id=_digest([*where, runs[sequence[place]].name])[:16],
        scenario=where[0],
        host=where[1],
        before=sequence[place - 1],
        after=sequence[place],
        changes=tuple((line, change) for _, line, change in group),
        coincidences=tuple(coincidences),
    )


def _change(line: Line, values: Floats, edges: Sequence[int], at: int) -> Change:
    before, after = values[edges[at - 1] : edges[at]], values[edges[at] : edges[at + 1]]
    ratio = low = high = math.nan
    if (before > 0).all() and (after > 0).all():
        row = estimates_apart([(np.log(after), np.log(before))]).iloc[0]
        ratio, low, high = float(row["ratio"]), float(row["low"]), float(row["high"])
    medians = float(np.median(before)), float(np.median(after))
    better = preferred(line.unit)
    rises = ratio > 1 if math.isfinite(ratio) else medians[1] > medians[0]
    direction = "different" if better == 0 else "better" if rises == (better > 0) else "worse"
    return Change(
        place=edges[at], before=medians[0], after=medians[1], ratio=ratio, low=low, high=high, direction=direction
    )


def _key(run: About, point: Point) -> str:
    arm = run.arms[point.arm]
    return _digest(
        [run.scenario, run.host, run.until, run.conditions, point.arm, arm["backend"], arm["accelerator"],
         arm["conditions"], point.quantity, point.state, point.unit]
    )[:16]  # fmt: skip


def _line(key: str, run: About, point: Point) -> Line:
    arm: Mapping[str, Any] = run.arms[point.arm]
    state = f", {point.state.replace('-', ' ')}" if point.state else ""
    return Line(
        id=key, scenario=run.scenario, host=run.host, backend=arm["backend"], accelerator=arm["accelerator"],
        arm=point.arm, quantity=point.quantity, state=point.state, unit=point.unit,
        title=f"{_named(point.quantity, run.until)}{state}",
        conditions={name: each for name, each in {**run.conditions, **arm["conditions"]}.items() if each},
    )  # fmt: skip


def _named(quantity: str, until: str) -> str:
    """As `lab.analysis.readiness.called` has it of most runs: what was waited for belongs to the name."""
    match quantity:
        case "boot.total":
            return f"time until {until}"
        case "cpu.boot":
            return f"CPU until {until}"
        case _:
            return label(quantity) if quantity in QUANTITIES or quantity.startswith("work.") else quantity


def _digest(value: Any) -> str:
    return sha256(json.dumps(value, sort_keys=True).encode("utf-8", "surrogatepass")).hexdigest()
