"""The table of the usual questions: each has its answer in at most two files, and these are there."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path

from lab.studies.registry import studies

DOCS = Path(__file__).parents[2] / "docs"
QUESTIONS = [
    "how a container starts", "how a virtual machine starts", "where a limit is written", "where a layer is unpacked",
    "where a claim is judged", "what a number means",
    *(f"how to add a {what}" for what in ("backend", "metric", "probe", "figure", "command", "study")),
]  # fmt: skip


def test_twelve_questions_have_their_answers_in_two_files_at_most() -> None:
    page = (DOCS / "development.md").read_text(encoding="utf-8")
    table = page.split("## Where things are")[1].split("\n\n")[1]
    rows = [re.split(r" \| ", line.strip("| ")) for line in table.splitlines()[2:]]
    assert [question for question, _ in rows] == QUESTIONS
    for question, answer in rows:
        files = re.findall(r"\]\(([^)]+)\)", answer)
        assert 1 <= len(files) <= 2, question
        assert all((DOCS / file).is_file() for file in files), question


def test_what_the_table_says_is_in_the_files_that_it_names() -> None:
    """A file that is there but is about something else answers nothing."""
    page = (DOCS / "development.md").read_text(encoding="utf-8")
    told = {
        "how a container starts": "lab/inside/begin.c",
        "where a limit is written": "Every limit",
        "where a layer is unpacked": "def unpack(",
        "where a claim is judged": "def judge(",
    }
    for question, word in told.items():
        (line,) = (line for line in page.splitlines() if line.startswith(f"| {question} |"))
        first = re.findall(r"\]\(([^)]+)\)", line)[0]
        assert word in (DOCS / first).read_text(encoding="utf-8"), question


def test_a_source_that_a_page_names_is_there() -> None:
    """By its name, or by the end of its path. Pages about adding something name what the reader is to write."""
    root = DOCS.parent
    there = {
        path.relative_to(root).as_posix() for name in ("lab", "tests", "tools") for path in (root / name).rglob("*.*")
    }
    pages = [root / "README.md", root / "CONTRIBUTING.md", *DOCS.glob("*.md")]
    named = [
        (page.name, name)
        for page in pages
        if not page.name.startswith("adding-")
        for name in re.findall(r"`([\w./-]+\.(?:py|c|sh))`", page.read_text(encoding="utf-8"))
    ]
    assert len(named) > 100
    ends = {"/".join(path.split("/")[at:]) for path in there for at in range(path.count("/") + 1)}
    assert [(page, name) for page, name in named if name not in ends] == []


def test_who_begins_finds_every_page_about_adding_something() -> None:
    begin = (DOCS.parent / "CONTRIBUTING.md").read_text(encoding="utf-8")
    missing = [page.name for page in DOCS.glob("adding-a-*.md") if f"(docs/{page.name})" not in begin]
    assert missing == []


def test_each_study_names_its_page_which_tells_of_its_command() -> None:
    menu = (DOCS.parent / "mkdocs.yml").read_text(encoding="utf-8")
    for study in studies():
        package = import_module(f"lab.studies.{study.kind}")
        (name,) = re.findall(r": (docs/[\w-]+\.md)\.$", package.__doc__ or "")
        page = (DOCS.parent / name).read_text(encoding="utf-8")
        assert f"lab {study.command} " in page, name
        assert re.search(r"^## What (may not be concluded|you may not conclude)$", page, re.MULTILINE), name
        assert f": {name}\n" in menu
