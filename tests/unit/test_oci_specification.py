"""The page that says which test holds what the runtime specification asks for names tests that exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
PAGE = TESTS.parent / "docs" / "lab-oci.md"
FILES = ("runtime.md", "runtime-linux.md", "config.md", "config-linux.md", "features.md, features-linux.md")
WHY_NOT = re.compile(r"\*(differs|not held):\*|matter")


def rows() -> list[tuple[str, str, str]]:
    """Section, what is asked for, and what holds it."""
    part = PAGE.read_text().partition("## What the specification asks for\n")[2]
    found = re.findall(r"^\| (.+?) \| .+? \| (.+) \| (.+) \|$", part, re.MULTILINE)
    return [row for row in found if row[0] not in ("section", "---")]


def names() -> set[str]:
    """Every test as the page would name it: FILE::TEST or FILE::CLASS::TEST."""
    found = set()
    for path in TESTS.rglob("test_*.py"):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.FunctionDef):
                found.add(f"{path.name}::{node.name}")
            elif isinstance(node, ast.ClassDef):
                inside = [each.name for each in node.body if isinstance(each, ast.FunctionDef)]
                found.update(f"{path.name}::{node.name}::{name}" for name in inside)
    return found


def test_every_test_that_is_named_exists() -> None:
    named = {name for _, _, held in rows() for name in re.findall(r"`(test_[^`]+)`", held)}
    assert len(named) > 80
    assert named - names() == set()


def test_a_row_is_held_by_a_test_or_says_why_not() -> None:
    without = [row for row in rows() if "`test_" not in row[2] and not WHY_NOT.search(f"{row[1]} {row[2]}")]
    assert without == []


@pytest.mark.parametrize("file", FILES)
def test_every_file_of_the_specification_has_its_rows(file: str) -> None:
    part = PAGE.read_text().partition(f"**{file}**\n")[2].partition("\n**")[0]
    assert part.count("\n|") > 3
