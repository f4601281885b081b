"""An exercise for tests: a teacher's notebook, and hand-ins of it as students and others would make them."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

from lab.classroom.exercise.handout import HANDOUT, KEY, make

HIDDEN, SOLUTION = "HIDDEN TESTS", "SOLUTION"
SECRET = "b5e1c0ffee"
"""Stands in the hidden tests and nowhere else."""


def cell(source: str, key: str = "", **marks: Any) -> dict[str, Any]:
    """A cell of code, with nbgrader's metadata if it has a key."""
    told = {"grade_id": key, "grade": False, "solution": False, "locked": False, "schema_version": 3, "task": False}
    metadata = {"nbgrader": told | marks} if key else {}
    return {
        "cell_type": "code", "id": key or f"c{abs(hash(source)) % 10**6}", "metadata": metadata, "outputs": [],
        "execution_count": None, "source": source,
    }  # fmt: skip


def text(source: str, key: str = "", **marks: Any) -> dict[str, Any]:
    found = cell(source, key, **marks)
    return {name: found[name] for name in ("id", "metadata", "source")} | {"cell_type": "markdown"}


def notebook(*cells: dict[str, Any]) -> dict[str, Any]:
    return {"cells": list(cells), "metadata": {}, "nbformat": 4, "nbformat_minor": 5}


def teachers() -> dict[str, Any]:
    """Three questions of 2, 3 and 1 points, and one of 2 that is marked by hand."""
    parameters = cell("seed = 5")
    parameters["metadata"]["tags"] = ["parameters"]
    return notebook(
        text("# Numbers"),
        parameters,
        cell("import random\nnumbers = [random.Random(seed).randrange(1000) for _ in range(5)]", "data", locked=True),
        cell(f"def double(value):\n    ### BEGIN {SOLUTION}\n    return 2 * value\n    ### END {SOLUTION}", "double",
             solution=True),
        cell(
            f"assert double(2) == 4, 'twice two'\n### BEGIN {HIDDEN}\ncases = 'ab', (1, 2)  # {SECRET}\n"
            f"assert all(map(lambda each: double(each) == 2 * each, cases))\n### END {HIDDEN}",
            "test-double", grade=True, locked=True, points=2,
        ),
        cell("total, largest = sum(numbers), max(numbers)", "sums", solution=True),
        cell(
            f"### BEGIN {HIDDEN}\nassert {SECRET!r}\n"
            f"2 * (total == sum(numbers)) + (largest == max(numbers))\n### END {HIDDEN}",
            "test-sums", grade=True, locked=True, points=3,
        ),
        cell("word = 'yes'", "word", solution=True),
        cell("assert word == 'yes'", "test-word", grade=True, locked=True, points=1),
        text("Because.", "why", grade=True, solution=True, points=2),
    )  # fmt: skip


def made(folder: Path, *students: str, seed: int = 7, whole: dict[str, Any] | None = None) -> Path:
    """A hand-out and its key in ``folder``/made; returns that."""
    source = folder / "numbers.ipynb"
    source.write_text(json.dumps(whole or teachers()))
    make(source, folder / "made", {name: {} for name in students}, seed)
    return folder / "made"


def handed_out(made: Path, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((made / HANDOUT / f"{name}.ipynb").read_text())
    return found


def key_of(made: Path) -> Path:
    return made / KEY


def answered(handed_out: dict[str, Any], **answers: str) -> dict[str, Any]:
    """The same with these sources in the cells of these keys, `_` for -."""
    found = copy.deepcopy(handed_out)
    by_key = {each["metadata"].get("nbgrader", {}).get("grade_id", ""): each for each in found["cells"]}
    for key, source in answers.items():
        by_key[key.replace("_", "-")]["source"] = source
    return found


RIGHT = {
    "double": "def double(value):\n    return value + value",
    "sums": "total, largest = sum(numbers), sorted(numbers)[-1]",
    "word": "word = 'y' + 'es'",
    "why": "Since it is.",
}
