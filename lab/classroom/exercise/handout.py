"""What students get of an exercise, and the teacher's key to it.

A folder: ``handout/NAME.ipynb`` for each student, or one for all, and ``key.json``, which the teacher keeps: the
whole notebook, and whose seed is which. A student's seed is drawn from the exercise's and the name, so that making
the exercise again for one more student leaves the others' as they are.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.classroom import marks
from lab.classroom.exercise import notebook as notebooks
from lab.classroom.exercise import release
from lab.classroom.session.store import folded
from lab.errors import UsageError
from lab.host.identity import private

KEY, HANDOUT = "key.json", "handout"
SHIPPED = Path(__file__).parent
SUFFIX = ".ipynb"
LARGEST_KEY = 64 << 20
SEEDS = 10**6
STRANGE = re.compile(r"[^\w@. +-]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Student:
    """``name`` is the stem of the file; ``person`` what a roster says, like `lab.classroom.marks.PERSON`."""

    name: str
    seed: int
    person: Mapping[str, str]

    @property
    def known_as(self) -> set[str]:
        """How a hand-in's file or folder may call them, folded."""
        return {folded(name) for name in (self.name, *(self.person.get(key, "") for key in marks.PERSON[:4])) if name}


@dataclass(frozen=True, slots=True, kw_only=True)
class Exercise:
    """A key: ``notebook`` is the teacher's. Without ``students`` there was one hand-out for all, with ``seed``."""

    name: str
    title: str
    seed: int | None
    notebook: dict[str, Any]
    students: tuple[Student, ...]

    @property
    def cells(self) -> list[notebooks.Cell]:
        return notebooks.cells(self.notebook)


def locate(word: str) -> Path:
    """The notebook that ``word`` means: a file, else the name of one that comes with lab. Raises UsageError."""
    shipped = SHIPPED / f"{word}{SUFFIX}"
    for file in (Path(word), *([shipped] if re.fullmatch(r"[a-z0-9-]+", word) else [])):
        if file.is_file():
            return file
    there = ", ".join(sorted(file.stem for file in SHIPPED.glob(f"*{SUFFIX}")))
    raise UsageError(f"there is no notebook {word}", hint=f"a file NAME.ipynb, or one that comes with lab: {there}")


def create(file: Path) -> None:
    """Write the exercise that comes with lab into ``file``, to be changed. Raises UsageError where one is."""
    if file.exists() or file.suffix != SUFFIX:
        raise UsageError(f"{file} can't be written: it exists, or is no .ipynb", hint="name a new file NAME.ipynb")
    (source,) = SHIPPED.glob(f"*{SUFFIX}")
    try:
        file.write_text(source.read_text(encoding="utf-8"), encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{file} can't be written: {error.strerror}", hint="name another file") from error


def students_of(roster: Path) -> dict[str, dict[str, str]]:
    """A class's people by the name of their file: the nickname, else login, id, email or name.

    Raises UsageError, which says what is wrong with the roster.
    """
    found: dict[str, dict[str, str]] = {}
    known_by: dict[int, str] = {}
    for known, person in marks.roster(roster).items():
        own = {folded(person[key]) for key in marks.PERSON if key in person}
        if known not in own:
            found[known] = person
        elif id(person) not in known_by:
            known_by[id(person)] = next(person[key] for key in ("login", "id", "email", "name") if key in person)
            found[known_by[id(person)]] = person
    return found


def make(
    source: Path, folder: Path, people: Mapping[str, Mapping[str, str]], seed: int | None
) -> tuple[Path, list[Path]]:
    """Write the hand-out of a teacher's notebook for ``people``, by name, or one for all, and the key.

    Returns the key's file and those of the hand-out. Raises UsageError for a notebook that can't be graded, for two
    people whose files would have the same name, and where ``folder`` has something already.
    """
    teachers = notebooks.read(source)
    cells = release.check(teachers)
    if folder.exists() and any(folder.iterdir()):
        raise UsageError(f"{folder} is there already", hint="name a new folder")
    has_seed = any(cell.role is notebooks.Role.PARAMETERS for cell in cells)
    if seed is None and has_seed:
        raise UsageError("the notebook has a seed, and none was given", hint="--seed N")
    students = [Student(name=name, seed=seed_of(seed or 0, name), person=person) for name, person in people.items()]
    files = {file_name(each.name): each for each in students}
    if len({folded(name) for name in files}) < len(students):
        raise UsageError("two students' files would have the same name", hint="give each a nickname of its own")
    handout = folder / HANDOUT
    handout.mkdir(parents=True)
    written = []
    for name, each in files.items() or [(source.stem, None)]:
        own = each.seed if each else seed
        told = {"exercise": source.stem, **({"student": each.name} if each else {})}
        version = release.student_version(teachers, own if has_seed else None, told)
        written.append(handout / f"{name}{SUFFIX}")
        written[-1].write_text(json.dumps(version, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    key = {
        "lab": "exercise", "name": source.stem, "title": _title(cells, source.stem),
        "seed": seed if has_seed else None, "notebook": teachers,
        "students": [{"name": each.name, "seed": each.seed, "person": dict(each.person)} for each in students],
    }  # fmt: skip
    private.write_text(folder / KEY, json.dumps(key, indent=1) + "\n")
    return folder / KEY, written


def seed_of(seed: int, name: str) -> int:
    """A student's own seed, the same whoever else is in the class."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{folded(name)}".encode()).digest()[:8], "big") % SEEDS


def file_name(name: str) -> str:
    """``name`` as a file can be called everywhere, without a folder in it."""
    return STRANGE.sub("_", name).strip(" .") or "_"


def open_key(file: Path) -> Exercise:
    """The exercise of a key. Raises UsageError when it is none."""
    try:
        with file.open("rb") as opened:
            data = opened.read(LARGEST_KEY + 1)
        told = json.loads(data)
        if not isinstance(told, dict) or told.get("lab") != "exercise":
            raise ValueError("it is another file")
        release.check(told["notebook"])
        return Exercise(
            name=str(told["name"]),
            title=str(told["title"]),
            seed=told["seed"],
            notebook=told["notebook"],
            students=tuple(
                Student(name=str(each["name"]), seed=int(each["seed"]), person=dict(each["person"]))
                for each in told["students"]
            ),
        )
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise UsageError(f"{file} is no key: {error}", hint="DIR/key.json of lab class exercise make") from error


def _title(cells: Sequence[notebooks.Cell], name: str) -> str:
    """The first heading of its text."""
    for cell in cells:
        for line in cell.source.splitlines() if not cell.is_code else ():
            if line.startswith("# ") and line.strip("# "):
                return line.strip("# ")
    return name
