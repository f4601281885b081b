"""A race on a terminal, as lines of text: never colour alone, and as large as the window lets it be."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lab.analysis.quantities import format_value
from lab.classroom.race import podium
from lab.classroom.race.model import (
    NOT_MEASURED,
    Cell,
    Lane,
    Race,
    Round,
    Slowed,
    Standing,
    View,
    ordinal,
    stopwatch,
    view,
)

if TYPE_CHECKING:
    from rich.text import Text

NAME, WATCH, PLACE = 16, 9, 5
MOST_ROWS, LEAST_WITH_GAP = 6, 3
LEAST_CELL, WIDE_CELL = 4, 12
STEPS_PER_SECOND = 4
FRAME = 9
"""Lines that are no lane: title, source, a gap, stations; podium, wins, a gap, remark, keys."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """What is on the screen: a moment of one round. ``at`` is below 0 before the start; ``told`` is what happens now,
    ``keys`` what can be pressed, ``remark`` where more is to be read.
    """

    race: Race
    place: int
    at: float
    slow: Slowed
    over: bool
    told: str
    keys: str
    remark: str


def draw(shown: Shown, columns: int, lines: int) -> list[Text]:
    """The whole screen, from the top; no line is wider than ``columns``, and there are no more than ``lines``."""
    from rich.text import Text

    one = shown.race.rounds[shown.place]
    places = one.places()
    slow = [lane for lane in one.lanes if lane.name in shown.slow.names]
    every = max(1, len(one.lanes) + len(slow))
    stands = podium.has_room(one, columns, lines - FRAME - every)
    below = list(_below(shown, podium.blocks if stands else None))
    rows = max(1, min(MOST_ROWS, (lines - FRAME - (podium.LINES if stands else 0)) // every))
    width = max(LEAST_CELL, (columns - NAME - WATCH - PLACE) // max(1, len(shown.race.stations)))
    made = [*_above(shown), _stations(shown, width)]
    for lane in one.lanes:
        made += _lane(lane, view(lane, shown.race.stations, shown.at, places), shown, width, rows)
        if lane in slow:
            late = shown.at / shown.slow.factor if shown.at >= 0 else shown.at
            seen = view(lane, shown.race.stations, late, places)
            made += _lane(lane, seen, shown, width, rows, factor=shown.slow.factor)
    room = max(0, lines - len(made) - len(below))
    made = [*made[: max(0, lines - len(below))], *([Text()] * room), *below]
    for line in made:
        line.truncate(columns, overflow="ellipsis")
    return made[:lines]


def _above(shown: Shown) -> Iterator[Text]:
    from rich.text import Text

    race = shown.race
    yield Text(f"{race.title}: who is first?", "bold")
    which = f"round {shown.place + 1} of {len(race.rounds)}" if len(race.rounds) > 1 else "one round"
    yield Text.assemble((f"{stopwatch(max(0.0, shown.at))}   {shown.told}", "bold"), f"   {which}")
    yield Text(f"until {race.goal}; {race.source}")


def _stations(shown: Shown, width: int) -> Text:
    from rich.text import Text

    made = Text(" " * NAME)
    for each in shown.race.stations:
        label = each.label if len(each.label) < width else each.short
        made.append(f"{label[: width - 1]:<{width}}", "underline")
    return made


def _lane(lane: Lane, seen: View, shown: Shown, width: int, rows: int, factor: int = 1) -> Iterator[Text]:
    """One lane as ``rows`` lines, the last of which is a gap where there are three or more."""
    from rich.text import Text

    is_slow = factor > 1
    how = "" if lane.how == "native" or rows > 1 else f", {lane.how.removesuffix(' emulation')}"
    own = [f"{lane.symbol} {lane.name}{how}", f"  {lane.how}"]
    names = [*([f"  {factor} × slower", "  same start"] if is_slow else own), *[""] * MOST_ROWS]
    watches = [stopwatch(seen.stopwatch), *[""] * MOST_ROWS]
    for row in range(rows):
        if row == rows - 1 >= LEAST_WITH_GAP - 1:
            yield Text()
            continue
        made = Text()
        made.append(f"{names[row][: NAME - 1]:<{NAME}}", "" if is_slow or row else "bold")
        if lane.failed and not lane.marks:
            said = f"did not finish: {lane.failed}" if row == 0 else ""
            made.append(said[: width * len(shown.race.stations)])
            yield made
            continue
        for station, cell in zip(shown.race.stations, seen.cells, strict=True):
            text, look = _cell(cell, width, row, f"{station.ink} on {station.fill}")
            made.append(text, look)
        watch = " fallen" if lane.failed and row == 0 else f" {watches[row]:>{WATCH - 1}}"
        made.append(watch, "bold reverse" if seen.finished and row == 0 else "bold")
        if row == 0 and seen.place and not is_slow:
            made.append(f" {ordinal(seen.place)}", "bold")
        yield made


def _cell(cell: Cell, width: int, row: int, colours: str) -> tuple[str, str]:
    """A station's letters and their look: a block stands at the start of what is passed, an arrow moves in what is
    underway.
    """
    inside = width - 1
    match cell.standing:
        case Standing.PASSED:
            words = format_value(cell.seconds, "seconds", 2) if row == 0 else ""
            return f"█{words[:inside]:<{inside}}", colours
        case Standing.UNDERWAY if row == 0:
            run = "." * (int(cell.seconds * STEPS_PER_SECOND) % 3) if width >= WIDE_CELL else ""
            words = f"{run}▶{format_value(cell.seconds, 'seconds', 2)}"
            return words[:width].ljust(width), "bold reverse"
        case Standing.UNDERWAY:
            return " " * width, "reverse"
        case Standing.UNTOLD:
            return f"{'· not told yet' if row == 0 else ''}"[:width].ljust(width), "dim"
        case Standing.NONE:
            return f"{'─' * inside} " if row == 0 else " " * width, "dim"
        case _:
            return f"{'·' if row == 0 else ''}".ljust(width), "dim"


def _below(shown: Shown, blocks: Callable[[Round, float], Iterable[str]] | None) -> Iterator[Text]:
    from rich.text import Text

    race, one = shown.race, shown.race.rounds[shown.place]
    for words in blocks(one, shown.at) if blocks else [podium.line(one, shown.at)]:
        yield Text(words, "bold")
    yield Text(_tally(race) if shown.over and shown.place == len(race.rounds) - 1 else "")
    yield Text(NOT_MEASURED)
    yield Text(shown.remark)
    yield Text(shown.keys, style="bold")


def _tally(race: Race) -> str:
    """Who was first how often; nothing of one round."""
    if len(race.rounds) < 2:
        return ""
    wins: Mapping[str, int] = race.wins()
    return f"First in {len(race.rounds)} rounds: " + ", ".join(f"{name} {count} ×" for name, count in wins.items())
