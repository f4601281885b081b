"""The student's version of a teacher's notebook, as ``nbgrader generate_assignment`` makes it, and with a seed.

Solutions become a stub, hidden tests and outputs go, cells that are not to be changed are locked, and each cell that
nbgrader knows has the checksum that it computes. One thing is lab's own: the cell tagged ``parameters``, which gets
the student's seed. It has no metadata of nbgrader's, so that nbgrader leaves each student's as it is.
"""

from __future__ import annotations

import copy
import hashlib
from typing import Any

from lab.classroom.exercise.inside.plain import BUILTINS, bound, needed, refused
from lab.classroom.exercise.notebook import (
    HIDDEN,
    KEY,
    LONGEST_SOURCE,
    MARK_SCHEME,
    PARAMETERS,
    SEED,
    SOLUTION,
    Cell,
    Role,
    cells,
    hidden_lines,
    marks_of,
    source_of,
    without,
)
from lab.errors import UsageError

CODE_STUB = "# YOUR CODE HERE\nraise NotImplementedError()"
TEXT_STUB = "YOUR ANSWER HERE"
SCHEMA = 3
IMPLIED = frozenset({"__name__"})


def check(notebook: dict[str, Any]) -> list[Cell]:
    """The cells of a teacher's notebook. Raises UsageError for what can't be handed out or graded, with the cell."""
    language = notebook.get("metadata", {}).get("kernelspec", {}).get("language", "python")
    if language != "python":
        raise UsageError(f"the notebook's language is {language}", hint="lab grades Python")
    found = cells(notebook)
    if len(found) < len(notebook["cells"]):
        raise UsageError("a cell is neither code nor text", hint="save the notebook with Jupyter")
    seen: set[str] = set()
    for raw, cell in zip(notebook["cells"], found, strict=True):
        where = f"cell {cell.key or len(seen) + 1}"
        try:
            _check_cell(raw, cell)
        except UsageError as error:
            raise UsageError(f"{where}: {error.message}", hint=error.hint) from error
        if cell.key in seen:
            raise UsageError(f"two cells are called {cell.key}", hint="give each a grade_id of its own")
        seen |= {cell.key} - {""}
    if sum(each.role is Role.PARAMETERS for each in found) > 1:
        raise UsageError(f"two cells are tagged {PARAMETERS}", hint="one holds the seed")
    if not any(each.is_graded for each in found):
        raise UsageError(
            "no cell of the notebook is graded", hint="mark cells with nbgrader; or: lab class exercise new FILE"
        )
    _check_names(found)
    return found


def _check_cell(raw: dict[str, Any], cell: Cell) -> None:
    marks, points = marks_of(raw), marks_of(raw).get("points")
    if marks and marks.get("schema_version") != SCHEMA:
        raise UsageError(f"its metadata is not nbgrader's schema {SCHEMA}", hint="open and save it with nbgrader")
    if cell.key and not KEY.fullmatch(cell.key):
        raise UsageError(f"{cell.key!r} is no grade_id", hint="letters, digits, _ and -")
    if len(cell.source) > LONGEST_SOURCE:
        raise UsageError(f"it is longer than {LONGEST_SOURCE >> 10} KiB", hint="keep data short")
    is_number = isinstance(points, int | float) and not isinstance(points, bool)
    if cell.is_graded and not (is_number and 0 <= cell.points < 1e6):
        raise UsageError(f"{points!r} are no points", hint="a number from 0 on")
    if hidden_lines(cell.source) and cell.role is not Role.TEST:
        raise UsageError("hidden tests stand outside a test", hint="nbgrader calls that an autograder test")
    if cell.role not in (Role.SOLUTION, Role.BY_HAND) and without(cell.source, SOLUTION) != cell.source:
        raise UsageError("a solution stands in a cell that students don't write", hint="mark it as a solution")
    without(cell.source, MARK_SCHEME)
    if cell.role is Role.SOLUTION and not cell.is_code:
        raise UsageError("a text's solution is graded by nobody", hint="mark it as graded by hand")
    if cell.role is Role.PARAMETERS and (len(SEED.findall(cell.source)) != 1 or marks):
        raise UsageError(
            f"the cell tagged {PARAMETERS} is not one line seed = NUMBER without nbgrader's marks",
            hint="lab sets the number",
        )
    if cell.is_code and (why := refused(cell.source)):
        raise UsageError(why, hint="exercises are plain Python")


def _check_names(found: list[Cell]) -> None:
    """A test may use what the cells define that lab executes beside it, what students write, and Python's own."""
    theirs = _bound(found, Role.SOLUTION, Role.BY_HAND)
    beside = _bound(found, Role.PARAMETERS, Role.SHOWN, Role.TEST)
    if both := sorted(theirs & beside):
        raise UsageError(
            f"{both[0]} is defined in a solution and in a cell that lab takes from you",
            hint="a test would never see the students'; choose another name there",
        )
    known = theirs | beside | BUILTINS | IMPLIED
    for cell in found:
        if cell.role is Role.TEST and (unknown := sorted(needed(cell.source) - known)):
            raise UsageError(
                f"cell {cell.key} uses {unknown[0]}, which no read-only cell, test or solution defines",
                hint="define or import it in the test, or in a read-only cell",
            )


def _bound(found: list[Cell], *roles: Role) -> set[str]:
    return {name for cell in found if cell.is_code and cell.role in roles for name in bound(cell.source)}


def student_version(notebook: dict[str, Any], seed: int | None, told: dict[str, Any]) -> dict[str, Any]:
    """What a student gets of a teacher's notebook that was checked; ``told`` is kept in its metadata as lab's."""
    version = copy.deepcopy(notebook)
    version["metadata"] = {
        **{key: value for key, value in version.get("metadata", {}).items() if key != "celltoolbar"},
        "lab": told,
    }
    for raw, cell in zip(version["cells"], cells(notebook), strict=True):
        raw["source"] = _source(cell, seed)
        if raw["source"] != cell.source and cell.role is not Role.PARAMETERS:
            raw.pop("attachments", None)  # a picture of a solution
        metadata = raw.setdefault("metadata", {})
        if raw["cell_type"] == "code":
            raw["outputs"], raw["execution_count"] = [], None
            for key in ("collapsed", "scrolled"):
                metadata.pop(key, None)
        if cell.role is not Role.FREE:
            metadata["deletable"] = False
        if cell.role in (Role.PARAMETERS, Role.SHOWN, Role.TEST, Role.TASK):
            metadata["editable"] = False
        if cell.key:
            marks = metadata["nbgrader"]
            marks["cell_type"] = raw["cell_type"]
            marks["checksum"] = checksum(raw)
    return version


def with_seed(source: str, seed: int | None) -> str:
    """The parameters' cell for a student; without a seed it stays as the teacher wrote it."""
    return source if seed is None else SEED.sub(f"seed = {seed}", source, count=1)


def _source(cell: Cell, seed: int | None) -> str:
    source = cell.source
    match cell.role:
        case Role.PARAMETERS:
            return with_seed(source, seed)
        case Role.TEST:
            return without(source, HIDDEN)
        case Role.SOLUTION | Role.BY_HAND:
            stub = CODE_STUB if cell.is_code else TEXT_STUB
            cut = without(source, SOLUTION, stub)
            return stub if cut == source else cut
        case Role.TASK:
            return without(source, MARK_SCHEME)
    return source


def checksum(raw: dict[str, Any]) -> str:
    """nbgrader's of a cell: the MD5 of its source, type, what it is for, name and points (nbgrader.utils)."""
    marks = marks_of(raw)
    grade, solution = bool(marks.get("grade")), bool(marks.get("solution"))
    locked = not solution and (grade or bool(marks.get("locked")))
    parts = [source_of(raw), raw["cell_type"], str(grade), str(solution), str(locked), str(marks["grade_id"])]
    if grade:
        parts.append(str(float(marks["points"])))
    return hashlib.md5("".join(parts).encode(), usedforsecurity=False).hexdigest()
