"""A notebook as far as an exercise needs it: cells, what each is for, and its source.

The file is nbformat 4 JSON, and a cell's role is nbgrader's metadata of it, schema version 3. Hand-ins are read by
this too: nothing that a file holds is taken for granted.
"""

from __future__ import annotations

import json
import re
import stat
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from lab.errors import UsageError

LARGEST_BYTES = 8 << 20
MOST_CELLS = 1000
LONGEST_SOURCE = 256 << 10
PARAMETERS = "parameters"
"""The tag of the cell that holds the seed: papermill's, of cells whose values are set from outside."""
SEED = re.compile(r"^seed\s*=\s*\d+\b", re.MULTILINE)
HIDDEN = ("BEGIN HIDDEN TESTS", "END HIDDEN TESTS")
SOLUTION = ("BEGIN SOLUTION", "END SOLUTION")
MARK_SCHEME = ("BEGIN MARK SCHEME", "END MARK SCHEME")
KEY = re.compile(r"[A-Za-z0-9_-]+")


class Role(StrEnum):
    """What a cell is for."""

    FREE = "free"  # no metadata of nbgrader's: whoever has the notebook may change it
    PARAMETERS = "parameters"  # the seed, one line
    SHOWN = "shown"  # read-only
    SOLUTION = "solution"  # students write it, and a test grades it
    TEST = "test"  # graded by executing it
    BY_HAND = "by hand"  # students write it, people grade it
    TASK = "task"  # says what students do elsewhere in the notebook; people grade it


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """``key`` is its grade_id, "" of a cell that has none; ``points`` is 0 unless it is graded."""

    role: Role
    source: str
    is_code: bool
    key: str = ""
    points: float = 0.0

    @property
    def is_graded(self) -> bool:
        return self.role in (Role.TEST, Role.BY_HAND, Role.TASK)


def read(file: Path) -> dict[str, Any]:
    """A notebook's JSON: a regular file, no link, of 8 MiB at most.

    Raises UsageError, which says what is wrong.
    """
    import os

    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    try:
        descriptor = os.open(file, flags)
        with os.fdopen(descriptor, "rb") as opened:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise UsageError(f"{file} is no file", hint="name a notebook: NAME.ipynb")
            data = opened.read(LARGEST_BYTES + 1)
        if len(data) > LARGEST_BYTES:
            raise UsageError(f"{file} is larger than {LARGEST_BYTES >> 20} MiB", hint="clear its outputs, save it")
        found = json.loads(data)
    except OSError as error:
        raise UsageError(f"{file} can't be read: {error.strerror}", hint="a notebook is a file NAME.ipynb") from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{file} is no notebook: {error}", hint="save it with Jupyter") from error
    if not isinstance(found, dict) or not isinstance(found.get("cells"), list) or found.get("nbformat") != 4:
        raise UsageError(f"{file} is no notebook of nbformat 4", hint="save it with Jupyter")
    if len(found["cells"]) > MOST_CELLS:
        raise UsageError(f"{file} has more than {MOST_CELLS} cells", hint="leave the needless ones out")
    return found


def cells(notebook: dict[str, Any]) -> list[Cell]:
    """Its cells as they claim to be; what is none is left out, and what has no role is free."""
    kinds = ("code", "markdown", "raw")
    return [_cell(raw) for raw in notebook["cells"] if isinstance(raw, dict) and raw.get("cell_type") in kinds]


def source_of(raw: dict[str, Any]) -> str:
    """A cell's text, which nbformat allows to be a list of lines."""
    source = raw.get("source", "")
    if isinstance(source, list):
        source = "".join(line for line in source if isinstance(line, str))
    return source if isinstance(source, str) else ""


def marks_of(raw: dict[str, Any]) -> dict[str, Any]:
    """nbgrader's metadata of a cell; empty where there is none."""
    metadata = raw.get("metadata")
    marks = metadata.get("nbgrader") if isinstance(metadata, dict) else None
    return marks if isinstance(marks, dict) else {}


def tags_of(raw: dict[str, Any]) -> list[Any]:
    metadata = raw.get("metadata")
    tags = metadata.get("tags") if isinstance(metadata, dict) else None
    return tags if isinstance(tags, list) else []


def _cell(raw: dict[str, Any]) -> Cell:
    marks, is_code = marks_of(raw), raw["cell_type"] == "code"
    key, points = marks.get("grade_id"), marks.get("points")
    role = _role(marks, is_code=is_code) if isinstance(key, str) and key else Role.FREE
    if is_code and PARAMETERS in tags_of(raw):
        role = Role.PARAMETERS
    is_number = isinstance(points, int | float) and not isinstance(points, bool)
    return Cell(
        role=role,
        source=source_of(raw),
        is_code=is_code,
        key=key if isinstance(key, str) and role is not Role.FREE else "",
        points=float(points) if is_number and points is not None else 0.0,
    )


def _role(marks: dict[str, Any], *, is_code: bool) -> Role:
    grade, solution = marks.get("grade") is True, marks.get("solution") is True
    if marks.get("task") is True:
        return Role.TASK
    if grade and solution:
        return Role.BY_HAND
    if grade:
        return Role.TEST if is_code else Role.BY_HAND
    if solution:
        return Role.SOLUTION
    return Role.SHOWN if marks.get("locked") is True else Role.FREE


def hidden_lines(source: str) -> set[int]:
    """The numbers, from 1, of the lines that students don't get, their marks included.

    Raises UsageError where a region has no end, or begins twice.
    """
    return _region(source, HIDDEN)


def without(source: str, marks: tuple[str, str], instead: str | None = None) -> str:
    """``source`` without the region between two marks; ``instead`` stands in its place, indented as its first line.

    Raises UsageError where a region has no end, or begins twice.
    """
    gone = _region(source, marks)
    kept: list[str] = []
    for number, line in enumerate(source.split("\n"), 1):
        if number not in gone:
            kept.append(line)
        elif marks[0] in line and instead is not None:
            indent = line[: len(line) - len(line.lstrip())]
            kept += [indent + each for each in instead.split("\n")]
    return "\n".join(kept)


def _region(source: str, marks: tuple[str, str]) -> set[int]:
    begin, end = marks
    found: set[int] = set()
    inside = False
    for number, line in enumerate(source.split("\n"), 1):
        if begin in line:
            if inside:
                raise UsageError(f"{begin} stands twice without {end}", hint=f"write ### {end} between them")
            inside = True
        if inside:
            found.add(number)
        if end in line:
            inside = False
            found.add(number)
    if inside:
        raise UsageError(f"{begin} has no end", hint=f"write ### {end} below it")
    return found
