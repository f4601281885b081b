"""The podium on a terminal: blocks of three heights, told apart by height, by what fills them and by words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from lab.analysis.quantities import format_value
from lab.classroom.race.model import Lane, Round, ordinal

HEIGHTS, FILLS = {1: 4, 2: 3, 3: 2}, {1: "█", 2: "▓", 3: "▒"}
WORDS = 2
"""Lines above a block: whose it is, and the time."""
LINES = HEIGHTS[1] + WORDS
WIDE, GAP = 16, 2
SIDE_BY_SIDE = (1, 0, 2)
"""The first one in the middle, as on any podium."""
COLUMNS = len(SIDE_BY_SIDE) * (WIDE + GAP)


def finished(one: Round, at: float) -> list[tuple[int, Lane]]:
    """Who has finished ``at`` seconds after the request, with their places, the first one first."""
    return [(place, lane) for place, lane in one.podium() if lane.finish is not None and lane.finish <= at]


def fell(one: Round) -> list[str]:
    """What is said of the lanes that began and did not finish."""
    return [
        f"{lane.symbol} {lane.name} did not finish: {lane.failed}" for lane in one.lanes if lane.failed and lane.marks
    ]


def has_room(one: Round, columns: int, lines: int) -> bool:
    """Whether blocks fit; the reason why a lane fell takes a whole line instead."""
    return lines >= LINES and columns >= COLUMNS and not fell(one)


def line(one: Round, at: float) -> str:
    """All of it in one line, where there is no room for blocks."""
    return "    ".join([_words(*each) for each in finished(one, at)] + fell(one))


def blocks(one: Round, at: float) -> Iterator[str]:
    """`LINES` lines of `COLUMNS` letters with up to three blocks, and beside them whoever came later."""
    there = finished(one, at)
    standing = [each for each in there if each[0] in HEIGHTS][: len(SIDE_BY_SIDE)]
    columns = [list(_column(standing[index] if index < len(standing) else None)) for index in SIDE_BY_SIDE]
    beside = [_words(*each) for each in there if each not in standing][:LINES]
    beside = [""] * (LINES - len(beside)) + beside
    for row, words in enumerate(beside):
        yield (" " * GAP).join([*(column[row] for column in columns), words]).rstrip()


def _column(standing: tuple[int, Lane] | None) -> Sequence[str]:
    """One block from the top, with nothing above it."""
    if standing is None:
        return [" " * WIDE] * LINES
    place, lane = standing
    fill, said = FILLS[place], f" {ordinal(place)} "
    made = [f"{lane.symbol} {lane.name}"[:WIDE].center(WIDE), _time(lane).center(WIDE)]
    made += [fill * WIDE] * HEIGHTS[place]
    made[WORDS + HEIGHTS[place] // 2] = said.center(WIDE, fill)
    return [" " * WIDE] * (LINES - len(made)) + made


def _words(place: int, lane: Lane) -> str:
    return f"{ordinal(place)} {lane.symbol} {lane.name} {_time(lane)}"


def _time(lane: Lane) -> str:
    return "" if lane.finish is None else format_value(lane.finish, "seconds")
