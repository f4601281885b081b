"""What a class believed before and after, and marks of it as CSV: for people, for Moodle, for Canvas.

A roster ties nicknames to people. Whatever a student could have typed is made harmless for spreadsheets.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from lab.classroom.session.grading import is_right
from lab.classroom.session.store import Store, folded
from lab.classroom.session.views import said
from lab.errors import UsageError

FORMULAS = "=+-@\t\r\n"
"""What a cell begins with that a spreadsheet would carry out (OWASP, CSV injection)."""
PERSON = ("name", "email", "id", "login", "section")
"""Columns of a roster, besides ``nickname``; all of them optional."""
LARGEST_ROSTER = 1 << 20


class Layout(StrEnum):
    """Whose columns a CSV has."""

    PLAIN = "plain"
    MOODLE = "moodle"
    CANVAS = "canvas"


@dataclass(frozen=True, slots=True, kw_only=True)
class Marked:
    """A student's guesses by question, ``first`` and at the end, in words; ``right`` and ``right_first`` are None
    where the run has no answer or the student made no guess. ``person`` is what the roster says.
    """

    nickname: str
    first: tuple[str, ...]
    last: tuple[str, ...]
    right_first: tuple[bool | None, ...]
    right: tuple[bool | None, ...]
    person: Mapping[str, str] = field(default_factory=dict)

    @property
    def points(self) -> int:
        """One for each question whose last guess was right."""
        return sum(each is True for each in self.right)

    @property
    def guessed(self) -> int:
        """In how many questions they took part."""
        return sum(bool(each) for each in self.last)


def roster(file: Path) -> dict[str, dict[str, str]]:
    """A CSV with a head (``nickname``, and any of `PERSON`) as people by folded nickname; where there is no column
    ``nickname``, students have joined by their login, id, email or name.

    Raises UsageError, which says what is wrong.
    """
    try:
        with file.open("rb") as opened:
            data = opened.read(LARGEST_ROSTER + 1)
        if len(data) > LARGEST_ROSTER:
            raise UsageError(f"{file} is larger than a class", hint="1 MiB at most")
        rows = list(csv.DictReader(io.StringIO(data.decode("utf-8-sig")), strict=True))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"{file} can't be read: {error}", hint="CSV in UTF-8 with a head") from error
    known = {"nickname", *PERSON}
    heads = {(name or "").strip().lower() for name in (rows[0] if rows else {})}
    if not heads & known:
        raise UsageError(
            f"{file} has none of the columns of a roster", hint=f"a head with {', '.join(sorted(known))}"
        )
    people: dict[str, dict[str, str]] = {}
    for row in rows:
        cells = {
            (name or "").strip().lower(): (value or "").strip()
            for name, value in row.items()
            if isinstance(value, str)
        }
        person = {key: cells[key] for key in PERSON if cells.get(key)}
        names = [cells.get("nickname", "")] if "nickname" in heads else [cells.get(key, "") for key in PERSON[:4]]
        for name in filter(None, names):
            if people.get(folded(name), person) != person:
                raise UsageError(f"{file}: two people are called {name}", hint="each nickname stands once")
            people[folded(name)] = person
    return people


def marks(store: Store, people: Mapping[str, Mapping[str, str]]) -> list[Marked]:
    """Everybody of a class, in the order in which they came."""
    questions = store.get("material")["questions"]
    found = []
    for student in store.students():
        own = store.guesses_of(student.id)
        first = [own.get((place, 1)) for place in range(len(questions))]
        last = [own.get((place, 2), guess) for place, guess in enumerate(first)]
        found.append(
            Marked(
                nickname=student.nickname,
                first=tuple(said(*each) for each in zip(questions, first, strict=True)),
                last=tuple(said(*each) for each in zip(questions, last, strict=True)),
                right_first=tuple(_right(*each) for each in zip(questions, first, strict=True)),
                right=tuple(_right(*each) for each in zip(questions, last, strict=True)),
                person=people.get(folded(student.nickname), {}),
            )
        )
    return found


def _right(question: Mapping[str, Any], guess: float | None) -> bool | None:
    return None if guess is None else is_right(question, guess)


def as_csv(store: Store, found: Sequence[Marked], layout: Layout) -> str:
    """The marks in one of the layouts.

    Moodle maps any column to its own when it imports grades, by email or id number; Canvas wants its first five
    columns by their names and a row with the points that are possible.
    """
    material = store.get("material")
    title = f"lab: {material['title']}"
    possible = sum("reason" not in each["answer"] for each in material["questions"])
    if layout is Layout.PLAIN:
        names = [each["name"] for each in material["questions"]]
        rows = [["nickname", *PERSON, "points", "of", "guessed"]]
        rows[0] += [f"{name}: {what}" for name in names for what in ("first", "last", "right")]
        rows += [_plain(each, possible) for each in found]
    else:
        points = [(each.nickname, each.person, str(each.points)) for each in found]
        rows = laid_out(layout, title, str(possible), points)
    return write_csv(rows)


def laid_out(
    layout: Layout, title: str, possible: str, found: Iterable[tuple[str, Mapping[str, str], str]]
) -> list[list[str]]:
    """Rows as Moodle or Canvas imports them, of everybody's name, person and points."""
    if layout is Layout.MOODLE:
        head = ["Nickname", "Full name", "Email address", "ID number", f"{title} (of {possible})"]
        return [
            head,
            *([name, *(person.get(key, "") for key in ("name", "email", "id")), own] for name, person, own in found),
        ]
    rows = [["Student", "ID", "SIS User ID", "SIS Login ID", "Section", title]]
    rows += [["    Points Possible", "", "", "", "", possible]]
    for name, person, own in found:
        rows.append([person.get("name", name), "", *(person.get(key, "") for key in ("id", "login", "section")), own])
    return rows


def write_csv(rows: Iterable[Sequence[str]]) -> str:
    """Rows as CSV (RFC 4180) in which no cell is a formula."""
    written = io.StringIO()
    csv.writer(written, lineterminator="\r\n").writerows([[harmless(cell) for cell in row] for row in rows])
    return written.getvalue()


def _plain(each: Marked, possible: int) -> list[str]:
    row = [
        each.nickname,
        *(each.person.get(key, "") for key in PERSON),
        str(each.points),
        str(possible),
        str(each.guessed),
    ]
    for first, last, right in zip(each.first, each.last, each.right, strict=True):
        row += [first, last, {True: "1", False: "0", None: ""}[right]]
    return row


def harmless(cell: str) -> str:
    """A cell that no spreadsheet takes for a formula: one that begins like it is text by the apostrophe before it."""
    return f"'{cell}" if {cell.lstrip(" ")[:1], cell.lstrip()[:1]} & set(FORMULAS) else cell


def believed(store: Store, found: Sequence[Marked]) -> list[dict[str, Any]]:
    """Per question what the class believed before and after: its histogram, and how many were right each time.

    ``before`` and ``after`` are of those who guessed; ``changed`` counts who went from wrong to right and back.
    """
    from lab.classroom.session.grading import votes
    from lab.classroom.session.histogram import histogram

    told = []
    for place, question in enumerate(store.get("material")["questions"]):
        first, last = votes(store, place)
        second = store.guesses(place, 2)
        chart = histogram(question, list(first.values()), list(last.values()) if second else None, revealed=True)
        pairs = [(each.right_first[place], each.right[place]) for each in found]
        told.append(
            {
                "question": question, "chart": chart, "guessed": len(last), "again": bool(second),
                "before": sum(each is True for each, _ in pairs), "after": sum(each is True for _, each in pairs),
                "to_right": pairs.count((False, True)), "to_wrong": pairs.count((True, False)),
            }
        )  # fmt: skip
    return told
