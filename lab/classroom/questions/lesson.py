"""A lesson: a folder with lesson.toml, intro.md, and a Markdown file per question with its text and its reveal.

lesson.toml, in which ``scenario``, ``unit``, ``within``, ``choices`` and ``needs`` are optional::

    title = "Speed"
    about = "What a start consists of, and which boundary makes it long."
    order = 3                                # place among the lessons
    minutes = 12
    scenario = "web-app"                     # what --live measures: a name, or a folder beside this file

    [[questions]]
    name = "vm-boot"                         # vm-boot.md has the texts
    bind = "boot.ratio(vm, container)"       # what a run answers: lab.classroom.questions.expressions
    unit = "times"                           # a number is guessed, in this unit; right within a factor of …
    within = 2.0
    needs = "lab compare web-app"            # what makes a run that can answer

    [[questions]]
    name = "who-answers"
    bind = "kernel(container)"
    choices = [{text = "the host's kernel", is = ["host"]}, {text = "one of its own", is = ["own"]}]

Choices of a number have bounds in place of ``is``: ``from`` (included) and ``below``, in ``unit``. Nowhere does a
lesson say which choice is right: the run does. A question's file begins with what is asked; ``## Explanation`` and
``## Mechanism`` are its reveal, and ``{{ memory.pss(vm) }}`` in any of them is what the run measured.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from lab.classroom.questions.expressions import TIMES, Expression, parse
from lab.errors import UsageError

SHIPPED = Path(__file__).parents[1] / "lessons"
LESSON, INTRO = "lesson.toml", "intro.md"
NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
INSERTED = re.compile(r"\{\{([^{}]*)\}\}")
HEADINGS = ("Explanation", "Mechanism")
SCENARIO = "web-app"
LONGEST_FILE = 64 * 1024
UNITS = {  # what is typed, times this, is in the second
    "times": (1.0, TIMES),
    "seconds": (1.0, "seconds"),
    "ms": (1e-3, "seconds"),
    "µs": (1e-6, "seconds"),
    "MiB": (1024.0**2, "bytes"),
    "KiB": (1024.0, "bytes"),
    "requests/s": (1.0, "requests/s"),
    "questions": (1.0, "1"),
    "layers": (1.0, "1"),
    "files": (1.0, "1"),
    "percent": (0.01, "1"),
}
OF_QUESTION = {"name", "bind", "unit", "within", "choices", "needs"}
OF_CHOICE = {"text", "is", "from", "below"}
NEW = {
    LESSON: """\
title = "{title}"
about = "What it is about, in a sentence."
order = 100
minutes = 10

[[questions]]
name = "vm-boot"
bind = "boot.ratio(vm, container)"
unit = "times"

[[questions]]
name = "whose-kernel"
bind = "kernel(container)"
choices = [{{text = "the host's kernel", is = ["host"]}}, {{text = "a kernel of its own", is = ["own"]}}]
""",
    INTRO: "What the class should know before the first question.\n",
    "vm-boot.md": """\
How many times as long as a container does the virtual machine take until its first correct answer?

## Explanation

Here {{ boot(vm) }} for the virtual machine and {{ boot(container) }} for the container.

## Mechanism

What happens in that time, and why.
""",
    "whose-kernel.md": """\
Which kernel answers the system calls of an application in a container?

## Explanation

Why it is so.

## Mechanism

What makes it so.
""",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """One to choose: right where the answer's word is in ``words``, or its number from ``low`` to below ``high``.

    The bounds are in the sample's unit.
    """

    text: str
    words: tuple[str, ...] = ()
    low: float = float("-inf")
    high: float = float("inf")


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One question. ``choices`` is empty where a number is guessed, in ``unit``; ``factor`` turns one into a sample's
    unit. ``within`` is how many times too large or too small a guess may be to count as right.
    """

    name: str
    bind: Expression
    choices: tuple[Choice, ...]
    unit: str
    factor: float
    within: float
    needs: str
    text: str  # Markdown, as the two that follow
    explanation: str
    mechanism: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Lesson:
    """A lesson that was read and is whole. ``scenario`` is what a live run of it measures, a name or a folder."""

    name: str
    folder: Path
    title: str
    about: str
    order: int
    minutes: int
    intro: str
    questions: tuple[Question, ...]
    scenario: str = SCENARIO


def names() -> list[str]:
    """The lessons that come with lab, in their order."""
    return [each.name for each in sorted(map(read, _folders()), key=lambda each: (each.order, each.name))]


def _folders() -> Iterator[Path]:
    return (file.parent for file in SHIPPED.glob(f"*/{LESSON}"))


def locate(word: str) -> Path:
    """The folder that ``word`` means: a path that holds a lesson, else the name of one that comes with lab.

    Raises UsageError when there is none.
    """
    for folder in (Path(word), *([SHIPPED / word] if NAME.fullmatch(word) else [])):
        if (folder / LESSON).is_file():
            return folder
    raise UsageError(f"no lesson is called {word!r}, and no folder is one", hint="lab class lesson ls")


def create(folder: Path) -> list[Path]:
    """Write a lesson of two questions into ``folder``, to begin with. Raises UsageError where there is something."""
    name = folder.resolve().name
    if not NAME.fullmatch(name):
        raise UsageError(f"{name!r} can't name a lesson", hint="small letters, digits and - between them")
    if folder.exists() and any(folder.iterdir()):
        raise UsageError(f"{folder} is there already", hint="name a new folder")
    folder.mkdir(parents=True, exist_ok=True)
    title = name.replace("-", " ").capitalize()
    for file, text in NEW.items():
        (folder / file).write_text(text.format(title=title) if file == LESSON else text, encoding="utf-8")
    return [folder / file for file in NEW]


def read(folder: Path) -> Lesson:
    """Read a lesson and check all of it: its grammar, its quantities and units, its texts and reveals.

    Raises UsageError, which names the file, the question and what is wrong with it.
    """
    file = folder / LESSON
    try:
        raw = tomllib.loads(_text(file))
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{file}: {error}", hint="lab class lesson new DIR writes one to begin with") from error
    _only(raw, {"title", "about", "order", "minutes", "questions", "scenario"}, str(file))
    scenario = raw.get("scenario", SCENARIO)
    if not isinstance(scenario, str) or not scenario:
        raise UsageError(f"{file}: scenario is no name and no folder", hint=f'scenario = "{SCENARIO}"')
    for key, kind in (("title", str), ("about", str), ("order", int), ("minutes", int), ("questions", list)):
        if not isinstance(raw.get(key), kind) or not raw[key]:
            raise UsageError(f"{file}: {key} is missing, or not what it should be", hint=f"{key} = {kind.__name__}")
    questions = tuple(_question(folder, each) for each in raw["questions"])
    seen = [each.name for each in questions]
    if len(set(seen)) < len(seen):
        raise UsageError(f"{file}: two questions have the same name", hint="each has a file of its own")
    intro = _text(folder / INTRO)
    _inserted(intro, folder / INTRO)
    if not intro.strip():
        raise UsageError(
            f"{folder / INTRO} says nothing", hint="what should the class know before the first question?"
        )
    return Lesson(
        name=folder.resolve().name, folder=folder, title=raw["title"], about=raw["about"], order=raw["order"],
        minutes=raw["minutes"], intro=intro, questions=questions,
        scenario=str(folder / scenario) if (folder / scenario).is_dir() else scenario,
    )  # fmt: skip


def _question(folder: Path, raw: object) -> Question:
    name = raw.get("name") if isinstance(raw, dict) else None
    if not isinstance(raw, dict) or not isinstance(name, str) or not NAME.fullmatch(name) or f"{name}.md" == INTRO:
        raise UsageError(f"{folder / LESSON}: a question has no name", hint='name = "vm-boot": small letters and -')
    where = f"{folder / LESSON}, {name}"
    _only(raw, OF_QUESTION, where)
    try:
        bind = parse(str(raw.get("bind", "")))
    except UsageError as error:
        raise UsageError(f"{where}: {error.message}", hint=error.hint) from error
    unit, within = str(raw.get("unit", "")), raw.get("within", 2.0)
    factor = _factor(bind, unit, where)
    if isinstance(within, bool) or not isinstance(within, int | float) or not within > 1:
        raise UsageError(f"{where}: within is a factor above 1", hint="within = 2.0")
    raws = raw.get("choices", [])
    if not raws and not unit:
        raise UsageError(
            f"{where}: there is nothing to choose", hint=f"choices, each of which is some of {bind.words}"
        )
    if raws and (not isinstance(raws, list) or len(raws) < 2):
        raise UsageError(f"{where}: there is nothing to choose", hint="two choices at least")
    choices = tuple(_choice(each, bind, factor, where) for each in raws)
    _distinct(choices, bind, where)
    text, parts = _parts(folder / f"{name}.md")
    return Question(
        name=name, bind=bind, choices=choices, unit=unit, factor=factor, within=float(within),
        needs=str(raw.get("needs", "")), text=text, explanation=parts[0], mechanism=parts[1],
    )  # fmt: skip


def _factor(bind: Expression, unit: str, where: str) -> float:
    if bind.words:
        if unit:
            raise UsageError(f"{where}: {bind.text} is a word, which has no unit", hint=f"choices: {bind.words}")
        return 1.0
    fitting = [name for name, (_, base) in UNITS.items() if base == bind.unit]
    if unit not in fitting:
        raise UsageError(
            f"{where}: {unit or 'no unit'} is no unit of {bind.text}", hint=f"one of: {', '.join(fitting)}"
        )
    return UNITS[unit][0]


def _choice(raw: object, bind: Expression, factor: float, where: str) -> Choice:
    if not isinstance(raw, dict) or not isinstance(raw.get("text"), str) or not raw["text"].strip():
        raise UsageError(f"{where}: a choice has no text", hint='{text = "…", …}')
    _only(raw, OF_CHOICE, where)
    words, low, high = raw.get("is", []), raw.get("from", float("-inf")), raw.get("below", float("inf"))
    if bind.words:
        unknown = [each for each in words if each not in bind.words] if isinstance(words, list) else ["…"]
        if unknown or "from" in raw or "below" in raw:
            raise UsageError(
                f"{where}: {raw['text']!r} is no answer of {bind.text}", hint=f"is = some of {bind.words}"
            )
        return Choice(text=raw["text"], words=tuple(words))
    if "is" in raw or not all(isinstance(each, int | float) for each in (low, high)) or not low < high:
        raise UsageError(f"{where}: {raw['text']!r} has no bounds", hint="from = …, below = …, in the unit")
    return Choice(text=raw["text"], low=low * factor, high=high * factor)


def _distinct(choices: Sequence[Choice], bind: Expression, where: str) -> None:
    """At most one choice is right for any answer."""
    words = [word for choice in choices for word in choice.words]
    if len(set(words)) < len(words):
        raise UsageError(f"{where}: a word stands in two choices", hint="one answer, one choice")
    if choices and bind.words and not words:
        raise UsageError(f"{where}: no choice can be right", hint=f"is = some of {bind.words}")
    ordered = sorted(choices, key=lambda each: each.low)
    overlap = any(one.high > other.low for one, other in pairwise(ordered))
    if overlap and not bind.words:
        raise UsageError(f"{where}: the bounds of two choices overlap", hint="from is included, below is not")


def _parts(file: Path) -> tuple[str, list[str]]:
    """What is asked, and the parts of the reveal. Raises UsageError where one of them is missing or empty."""
    text = _text(file)
    _inserted(text, file)
    asked, *rest = re.split(r"^## (.+?)\s*$", text, flags=re.MULTILINE)
    found = dict(zip(rest[::2], rest[1::2], strict=True))
    _only(found, set(HEADINGS), str(file))
    for heading in HEADINGS:
        if not found.get(heading, "").strip():
            raise UsageError(f"{file}: its reveal has no {heading.lower()}", hint=f"## {heading}, and what it is")
    if not asked.strip():
        raise UsageError(f"{file}: it asks nothing", hint=f"the question stands before ## {HEADINGS[0]}")
    return asked.strip(), [found[heading].strip() for heading in HEADINGS]


def inserted(lesson: Lesson) -> dict[str, Expression]:
    """Every expression in the lesson's texts, by what stands between its braces."""
    texts = [
        lesson.intro,
        *(part for each in lesson.questions for part in (each.text, each.explanation, each.mechanism)),
    ]
    return {inside: parse(inside) for text in texts for inside in INSERTED.findall(text)}


def _inserted(text: str, file: Path) -> None:
    if "{{" in INSERTED.sub("", text):
        raise UsageError(f"{file}: a {{{{ has no end", hint="{{ memory.pss(vm) }}")
    for inside in INSERTED.findall(text):
        try:
            parse(inside)
        except UsageError as error:
            raise UsageError(f"{file}: {error.message}", hint=error.hint) from error


def _only(raw: Mapping[str, Any], known: set[str], where: str) -> None:
    if unknown := sorted(set(raw) - known):
        raise UsageError(f"{where}: there is no {unknown[0]}", hint=f"known: {', '.join(sorted(known))}")


def _text(file: Path) -> str:
    try:
        with file.open("rb") as opened:
            data = opened.read(LONGEST_FILE + 1)
        if len(data) > LONGEST_FILE:
            raise UsageError(f"{file} is longer than {LONGEST_FILE // 1024} KiB", hint="a lesson is short")
        return data.decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{file} can't be read: {error}", hint="lab class lesson new DIR writes one") from error
