"""Of all small mistakes in what everything rests on, tests notice nearly all: ``pytest -m nightly tests/mutation``.

docs/mutation.md lists those that they don't, each with a reason.
"""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from driver import ROOT, TARGETS
from mutants import mutants

PAGE = ROOT / "docs" / "mutation.md"
LEAST = 0.85
HOURS = 3


def listed(name: str) -> set[str]:
    """The survivors that the page lists under a module's heading."""
    section = PAGE.read_text(encoding="utf-8").partition(f"\n### {name}\n")[2].partition("\n### ")[0]
    return set(re.findall(r"^ +(\S.*: `.*` → `.*`)$", section, re.MULTILINE))


@pytest.mark.parametrize("name", TARGETS)
def test_what_the_page_lists_is_a_mistake_that_can_be_made(name: str) -> None:
    known = {mutant.name for mutant in mutants(TARGETS[name].path.read_text(encoding="utf-8"))}
    assert listed(name) <= known


@pytest.mark.nightly
@pytest.mark.timeout(HOURS * 3600)
@pytest.mark.parametrize("name", TARGETS)
def test_mistakes_are_noticed(name: str) -> None:
    driver = Path(__file__).with_name("driver.py")
    done = subprocess.run([sys.executable, str(driver), name], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout[done.stdout.index("{\n") :])
    assert len(found["survivors"]) <= (1 - LEAST) * found["mutants"], found["survivors"]
    assert set(found["survivors"]) <= listed(name), "to be tested, or listed with a reason"


def test_a_mistake_of_each_kind() -> None:
    source = (
        "LIMIT = 3\n"
        "def f(x: int = 1) -> int:\n"
        "    if x < LIMIT and not x:\n"
        "        raise ValueError('few')\n"
        "    return x + 2\n"
    )
    found = mutants(source)
    assert [(mutant.line, mutant.is_inside, mutant.name.partition(": ")[2]) for mutant in found] == [
        (1, False, "`LIMIT = 3` → `LIMIT = 4`"),
        (2, False, "`def f(x: int=1) -> int:` → `def f(x: int=2) -> int:`"),
        (3, True, "`if x < LIMIT and (not x):` → `if not (x < LIMIT and (not x)):`"),
        (3, True, "`x < LIMIT and (not x)` → `x < LIMIT or not x`"),
        (3, True, "`x < LIMIT` → `x <= LIMIT`"),
        (3, True, "`not x` → `x`"),
        (4, True, "`raise ValueError('few')` → `pass`"),
        (5, True, "`return x + 2` → `return None`"),
        (5, True, "`x + 2` → `x - 2`"),
        (5, True, "`return x + 2` → `return x + 3`"),
    ]
    former = ast.unparse(ast.parse(source)).splitlines()
    for mutant in found:
        lines = mutant.code.splitlines()
        assert len(lines) == len(former)
        assert sum(line != before for line, before in zip(lines, former, strict=True)) == 1


def test_every_module_is_there_with_its_tests() -> None:
    for target in TARGETS.values():
        assert target.path.is_file(), target.module
        assert all((ROOT / test).is_file() for test in target.tests), target.module
