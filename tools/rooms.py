"""docs/rooms.svg: the packages of lab in the layers of pyproject.toml, with arrows for the imports between them.

An arrow that follows from others is left out: where a package imports a second one, and that a third one, the first
may import the third one as well. ``python tools/rooms.py`` writes the picture; a test compares it with the imports.
"""

from __future__ import annotations

import ast
import textwrap
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from itertools import pairwise
from pathlib import Path
from statistics import fmean

import grimp

ROOT = Path(__file__).parents[1]
PICTURE = ROOT / "docs" / "rooms.svg"
WIDTH, MARGIN = 832, 12  # as wide as the text of a page
BOX_WIDTH, BOX_HEIGHT, PITCH = 218, 76, 114
LANE, GAP = 14, 12
LETTERS = 34  # in a line below a room's name
SWEEPS = 24

Imports = Mapping[str, frozenset[str]]

STYLE = """
svg { --paper: #ffffff; --room: #f4f6f8; --line: #aab4be; --ink: #1c2024; --soft: #55606b; --arrow: #4b6f9e; }
@media (prefers-color-scheme: dark) {
  svg { --paper: #15191d; --room: #232a31; --line: #4d5863; --ink: #e3e7eb; --soft: #a9b3bd; --arrow: #82a8d8; }
}
.paper { fill: var(--paper); } .room rect { fill: var(--room); stroke: var(--line); }
text { font-family: system-ui, sans-serif; } .name { font-size: 14px; font-weight: 600; fill: var(--ink); }
.what { font-size: 11px; fill: var(--soft); } .arrow { fill: none; stroke: var(--arrow); stroke-width: 1.3; }
marker path { fill: var(--arrow); }
"""


@dataclass(eq=False, slots=True)
class Place:
    """A room, or where an arrow passes between the rooms of a layer."""

    layer: int
    name: str = ""  # of a room
    x: float = 0.0  # of its middle
    above: list[Place] = field(default_factory=list)
    below: list[Place] = field(default_factory=list)

    @property
    def width(self) -> float:
        return BOX_WIDTH if self.name else LANE

    @property
    def top(self) -> float:
        return MARGIN + self.layer * PITCH


def layers() -> list[list[str]]:
    """The rooms as import-linter has them, from the top."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (whole,) = (each for each in contracts if each["type"] == "layers" and "containers" not in each)
    return [[room.strip() for room in layer.split("|")] for layer in whole["layers"]]


def imports(rooms: Sequence[str]) -> Imports:
    """Which of the rooms each imports, anywhere in it, by itself."""
    graph = grimp.build_graph("lab", cache_dir=None)

    def room_of(module: str) -> str | None:
        found = [room for room in rooms if module == room or module.startswith(f"{room}.")]
        return max(found, key=len, default=None)

    seen: dict[str, set[str]] = {room: set() for room in rooms}
    for module in graph.modules:
        here = room_of(module)
        if here is not None:
            there = {room_of(each) for each in graph.find_modules_directly_imported_by(module)}
            seen[here] |= {room for room in there if room is not None and room != here}
    return {room: frozenset(found) for room, found in seen.items()}


def shortest(found: Imports) -> Imports:
    """Without the arrows that follow from others. The rooms have no circles: import-linter sees to that."""

    def reached(room: str) -> set[str]:
        return set().union(*({each} | reached(each) for each in found[room]))

    return {
        room: frozenset(each for each in there if not any(each in reached(other) for other in there - {each}))
        for room, there in found.items()
    }


def what(room: str) -> str:
    """The first sentence of a room's docstring, up to its colon."""
    path = ROOT / room.replace(".", "/")
    text = ast.get_docstring(
        ast.parse((path / "__init__.py" if path.is_dir() else path.with_suffix(".py")).read_text())
    )
    return (text or "").split("\n\n")[0].replace("\n", " ").split(". ")[0].rstrip(".").replace("`", "")


def placed(rows: Sequence[Sequence[str]], arrows: Imports) -> list[list[Place]]:
    """Every room and every passage of an arrow, in an order with few crossings, at its place."""
    grid = [[Place(layer, room) for room in row] for layer, row in enumerate(rows)]
    by_name = {place.name: place for row in grid for place in row}
    for room in (room for row in rows for room in row):
        for target in sorted(arrows[room]):
            here, there = by_name[room], by_name[target]
            passages = [Place(layer) for layer in range(here.layer + 1, there.layer)]
            for passage in passages:
                grid[passage.layer].append(passage)
            for upper, lower in pairwise([here, *passages, there]):
                upper.below.append(lower)
                lower.above.append(upper)
    for row in grid:
        spread(row, [WIDTH / 2] * len(row))
    for sweep in range(SWEEPS):
        down = sweep % 2 == 0
        for row in grid if down else reversed(grid):
            wanted = {id(place): middle(place, place.above if down else place.below) for place in row}
            row.sort(key=lambda place: wanted[id(place)])
            spread(row, [wanted[id(place)] for place in row])
    for row in grid:
        spread(row, [middle(place, [*place.above, *place.below]) for place in row])
    return grid


def middle(place: Place, others: Sequence[Place]) -> float:
    return fmean(each.x for each in others) if others else place.x


def spread(row: Sequence[Place], wanted: Sequence[float]) -> None:
    """Put the places of a layer, in their order, as near to where they want to be as the others and the paper let."""
    left = float(MARGIN)
    for place, x in zip(row, wanted, strict=True):
        place.x = max(x, left + place.width / 2)
        left = place.x + place.width / 2 + GAP
    right = float(WIDTH - MARGIN)
    for place in reversed(row):
        place.x = min(place.x, right - place.width / 2)
        right = place.x - place.width / 2 - GAP
    if row and row[0].x - row[0].width / 2 < MARGIN:
        raise ValueError(f"layer {row[0].layer} does not fit into {WIDTH} pixels: make the boxes narrower")


def drawn(grid: Sequence[Sequence[Place]], arrows: Imports) -> str:
    """The picture."""
    height = 2 * MARGIN + (len(grid) - 1) * PITCH + BOX_HEIGHT
    names = {room.removeprefix("lab.") for room in arrows}
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        'role="img" aria-labelledby="title">',
        f'<title id="title">The {len(names)} packages of lab in {len(grid)} layers, and which imports which</title>',
        f"<style>{STYLE}</style>",
        '<marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0 0 L8 4 L0 8 z"/></marker>',
        f'<rect class="paper" width="{WIDTH}" height="{height}" rx="8"/>',
    ]
    rooms = [place for row in grid for place in row if place.name]
    lines += [arrow(room, first) for room in rooms for first in sorted(room.below, key=lambda place: place.x)]
    return "\n".join([*lines, *map(box, rooms), "</svg>", ""])


def arrow(room: Place, first: Place) -> str:
    """From the lower side of a room, through its passages, to the upper side of the one it imports."""
    x, y = port(room, room.below, first), room.top + BOX_HEIGHT
    path, here, there = [f"M{x:.0f} {y:.0f}"], room, first
    while True:
        to_x, to_y = (port(there, there.above, here) if there.name else there.x), there.top
        bend = (to_y - y) / 2
        path.append(f"C{x:.0f} {y + bend:.0f} {to_x:.0f} {to_y - bend:.0f} {to_x:.0f} {to_y:.0f}")
        if there.name:
            break
        x, y = to_x, to_y + BOX_HEIGHT
        path.append(f"V{y:.0f}")
        (here, there) = there, there.below[0]
    start, end = room.name.removeprefix("lab."), there.name.removeprefix("lab.")
    return f'<path class="arrow" marker-end="url(#head)" d="{" ".join(path)}"><title>{start} → {end}</title></path>'


def port(room: Place, others: Iterable[Place], other: Place) -> float:
    """Where on a side of its room an arrow begins or ends: side by side, in the order of where they come from."""
    order = sorted(others, key=lambda place: place.x)
    return room.x + (order.index(other) - (len(order) - 1) / 2) * min(22.0, (BOX_WIDTH - 24) / len(order))


def box(room: Place) -> str:
    left = room.x - BOX_WIDTH / 2
    words = textwrap.wrap(what(room.name), LETTERS, max_lines=3, placeholder=" …")
    rows = "".join(
        f'<text class="what" x="{room.x:.0f}" y="{room.top + y}" text-anchor="middle">{escape(line)}</text>'
        for y, line in zip((38, 52, 66), words, strict=False)
    )
    return (
        f'<g class="room"><rect x="{left:.0f}" y="{room.top:.0f}" width="{BOX_WIDTH}" height="{BOX_HEIGHT}" rx="6"/>'
        f'<text class="name" x="{room.x:.0f}" y="{room.top + 20:.0f}" text-anchor="middle">'
        f"{escape(room.name.removeprefix('lab.'))}</text>{rows}</g>"
    )


def picture(rows: Sequence[Sequence[str]], found: Imports) -> str:
    """The picture of these rooms with these imports."""
    arrows = shortest(found)
    return drawn(placed(rows, arrows), arrows)


def today() -> str:
    """The picture of the tree as it is."""
    rows = layers()
    return picture(rows, imports([room for row in rows for room in row]))


if __name__ == "__main__":
    PICTURE.write_text(today(), encoding="utf-8")
