"""Whose hand-in is which file, and what of it is executed in which order.

The order is the teacher's, and so are the seed, the read-only cells and the tests; of a hand-in come the answers and
the cells that the student added, each where it stood. Whose it is says the file's or the folder's name, never what is
written in the file.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.classroom.exercise import notebook as notebooks
from lab.classroom.exercise import release
from lab.classroom.exercise.handout import SUFFIX, Exercise, Student, file_name
from lab.classroom.exercise.notebook import Cell, Role
from lab.classroom.session.store import folded
from lab.errors import UsageError

DEEPEST_FOLDER = 4
MOST_FILES = 5000


@dataclass(frozen=True, slots=True, kw_only=True)
class HandIn:
    """``student`` is None where the exercise's students are known and this is nobody's of them."""

    name: str
    file: Path | None
    student: Student | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A cell to execute, or to show: ``is_answered`` unless it stands as it was handed out, or is missing."""

    cell: Cell
    is_answered: bool = True


def find(paths: Sequence[Path], exercise: Exercise) -> list[HandIn]:
    """The hand-ins among files, and in folders of them, by name; links are not followed.

    Raises UsageError when there is none, or two of the same student.
    """
    found: dict[str, HandIn] = {}
    for path in paths:
        for file, words in _files(path):
            each = _owned(file, words, exercise)
            page = folded(file_name(each.name))  # which no other may overwrite
            if (other := found.get(page)) is not None:
                raise UsageError(
                    f"two hand-ins are {each.name}'s: {other.file} and {file}", hint="leave the one that counts"
                )
            found[page] = each
    if not found:
        raise UsageError("there is no hand-in", hint=f"name files NAME{SUFFIX}, or a folder that holds them")
    return [found[name] for name in sorted(found)]


def _files(path: Path) -> Iterator[tuple[Path, list[str]]]:
    """Notebooks, each with the words that say whose it is: the outermost folder first, then its own name."""
    if not path.is_dir():
        if not path.exists():
            raise UsageError(f"there is no file {path}", hint=f"name files NAME{SUFFIX}, or a folder that holds them")
        yield path, [path.stem]
        return
    count = 0
    for folder, inner, files in os.walk(path):
        below = Path(folder).relative_to(path).parts
        inner[:] = sorted(name for name in inner if not name.startswith(".")) if len(below) < DEEPEST_FOLDER else []
        for name in sorted(files):
            if name.endswith(SUFFIX) and not name.startswith("."):
                if (count := count + 1) > MOST_FILES:
                    raise UsageError(f"{path} holds more than {MOST_FILES} notebooks", hint="name another folder")
                yield Path(folder) / name, [*below, name.removesuffix(SUFFIX)]


def _owned(file: Path, words: Sequence[str], exercise: Exercise) -> HandIn:
    words = [os.fsencode(word).decode(errors="replace") for word in words]
    if not exercise.students:
        return HandIn(name=words[0], file=file, student=Student(name=words[0], seed=exercise.seed or 0, person={}))
    for word in words:
        for called in (folded(word), folded(word.partition("_")[0])):
            for student in exercise.students:
                if called in student.known_as:
                    return HandIn(name=student.name, file=file, student=student)
    return HandIn(name=words[0], file=file, student=None)


def steps(exercise: Exercise, student: Student, handed_in: dict[str, Any]) -> list[Step]:
    """What is to be executed of a hand-in."""
    own, extras = _sorted(notebooks.cells(handed_in), {cell.key for cell in exercise.cells if cell.key})
    seed = None if exercise.seed is None else student.seed
    given = notebooks.cells(release.student_version(exercise.notebook, seed, {}))
    planned: list[Step] = []
    pending = extras.get("", [])
    for cell, as_given in zip(exercise.cells, given, strict=True):
        if cell.role is Role.PARAMETERS:
            planned.append(Step(cell=as_given))
            continue
        if not cell.key:
            continue  # it is the student's as well, and handed in
        planned += [Step(cell=extra) for extra in pending]
        if cell.role in (Role.SOLUTION, Role.BY_HAND):
            planned.append(_answer(cell, as_given, own.get(cell.key)))
        else:
            planned.append(Step(cell=cell))
        pending = extras.get(cell.key, [])
    return planned + [Step(cell=extra) for extra in pending]


def _sorted(handed_in: list[Cell], known: set[str]) -> tuple[dict[str, Cell], dict[str, list[Cell]]]:
    """The first cell of each known key, and what code stands behind each, which is the student's own."""
    own: dict[str, Cell] = {}
    extras: dict[str, list[Cell]] = {}
    after = ""
    for cell in handed_in:
        if cell.key in known and cell.key not in own:
            own[cell.key], after = cell, cell.key
        elif cell.is_code and cell.role is not Role.PARAMETERS:
            extras.setdefault(after, []).append(_free(cell.source))
    return own, extras


def _free(source: str) -> Cell:
    return Cell(role=Role.FREE, source=source[: notebooks.LONGEST_SOURCE], is_code=True)


def _answer(cell: Cell, given: Cell, answer: Cell | None) -> Step:
    if answer is None or answer.is_code != cell.is_code or len(answer.source) > notebooks.LONGEST_SOURCE:
        return Step(cell=Cell(role=cell.role, source="", is_code=cell.is_code, key=cell.key, points=cell.points),
                    is_answered=False)  # fmt: skip
    taken = Cell(role=cell.role, source=answer.source, is_code=cell.is_code, key=cell.key, points=cell.points)
    return Step(cell=taken, is_answered=answer.source.strip() != given.source.strip())
