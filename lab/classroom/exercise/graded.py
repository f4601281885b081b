"""What a hand-in is worth, cell by cell, and how that is told: as CSV, as data, as a page for the student.

A test that passes gives its points; where its last expression is a number, that many; one that fails none. What is
said of a failure is the test's own message, or the line that failed if students have it: never a hidden line.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from lab.classroom import marks
from lab.classroom.exercise.handout import Exercise
from lab.classroom.exercise.notebook import Cell, Role, hidden_lines
from lab.classroom.marks import Layout

HIDDEN = "a test that you don’t see failed"
BY_HAND = "marked by hand"


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """A graded cell: ``got`` of ``points``, None where a person has to look."""

    key: str
    points: float
    got: float | None
    says: str = ""
    is_by_hand: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """An executed or answered cell for the student's page: what it printed, and what went wrong in it."""

    role: Role
    key: str
    source: str
    is_code: bool
    output: str = ""
    error: str = ""
    mark: Mark | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Graded:
    """One student's hand-in; ``remark`` says what was odd about it as a whole."""

    name: str
    marks: tuple[Mark, ...]
    remark: str = ""
    shown: tuple[Shown, ...] = ()
    person: Mapping[str, str] = field(default_factory=dict)

    @property
    def points(self) -> float:
        return sum(each.got for each in self.marks if each.got is not None)

    @property
    def possible(self) -> float:
        """Without what is marked by hand."""
        return sum(each.points for each in self.marks if not each.is_by_hand)

    @property
    def by_hand(self) -> float:
        """The points that a person still has to give."""
        return sum(each.points for each in self.marks if each.got is None)


def verdict(cell: Cell, told: Mapping[str, Any]) -> Mark:
    """The mark of a test by what the process that executed it told."""
    error = told.get("error")
    if error is not None:
        return Mark(key=cell.key, points=cell.points, got=0.0, says=_says(cell, error))
    points = told.get("points")
    if points is None:
        return Mark(key=cell.key, points=cell.points, got=cell.points)
    if not (isinstance(points, int | float) and math.isfinite(points) and 0 <= points <= cell.points):
        return Mark(key=cell.key, points=cell.points, got=0.0, says=f"the test gave {points} of {cell.points:g}")
    missing = "" if points == cell.points else HIDDEN if hidden_lines(cell.source) else "not all of it is right"
    return Mark(key=cell.key, points=cell.points, got=float(points), says=missing)


def clean(text: object, longest: int = 1000) -> str:
    """What a hand-in said, as it can be written anywhere: no control characters, no halves of pairs, not too long."""
    whole = "".join(letter if letter.isprintable() or letter in "\n\t" else "\ufffd" for letter in str(text))
    return whole if len(whole) <= longest else whole[:longest] + " …"


def _says(cell: Cell, error: Mapping[str, Any]) -> str:
    kind, message, line = clean(error.get("type", "")), clean(error.get("message", "")), int(error.get("line") or 0)
    lines = cell.source.split("\n")
    is_hidden = line in hidden_lines(cell.source)
    if kind == "AssertionError" and message:
        return message
    if is_hidden:
        return HIDDEN
    if error.get("hand_in"):
        return message
    where = f"failed: {lines[line - 1].strip()}" if 0 < line <= len(lines) else "it failed"
    return where if kind == "AssertionError" else f"{where} ({kind}: {message})"


def nothing(exercise: Exercise, name: str, remark: str, person: Mapping[str, str]) -> Graded:
    """What somebody has without a hand-in that could be executed."""
    remark = clean(remark)
    found = tuple(
        Mark(key=cell.key, points=cell.points, got=0.0, says=remark, is_by_hand=cell.role is not Role.TEST)
        for cell in exercise.cells
        if cell.is_graded
    )
    return Graded(name=name, marks=found, remark=remark, person=person)


def as_csv(exercise: Exercise, found: Sequence[Graded], layout: Layout) -> str:
    """The points in one of the layouts of `lab.classroom.marks`; plain has each graded cell's, and the remark.

    A cell that is marked by hand stays empty, to be filled in.
    """
    possible = sum(cell.points for cell in exercise.cells if cell.role is Role.TEST)
    if layout is not Layout.PLAIN:
        rows = [(each.name, each.person, f"{each.points:g}") for each in found]
        return marks.write_csv(marks.laid_out(layout, f"lab: {exercise.title}", f"{possible:g}", rows))
    keys = [cell.key for cell in exercise.cells if cell.is_graded]
    head = ["student", *marks.PERSON, "points", "of", "by_hand", *keys, "remark"]
    return marks.write_csv([head, *(_plain(each) for each in found)])


def _plain(each: Graded) -> list[str]:
    each_cell = ["" if one.got is None else f"{one.got:g}" for one in each.marks]
    person = [each.person.get(key, "") for key in marks.PERSON]
    return [
        each.name,
        *person,
        f"{each.points:g}",
        f"{each.possible:g}",
        f"{each.by_hand:g}",
        *each_cell,
        each.remark,
    ]


def as_data(found: Sequence[Graded]) -> list[dict[str, Any]]:
    """For JSON: everything but the cells' sources and outputs."""
    return [
        {"student": each.name, "points": each.points, "of": each.possible, "by_hand": each.by_hand}
        | {"remark": each.remark, "person": dict(each.person), "marks": [asdict(one) for one in each.marks]}
        for each in found
    ]
