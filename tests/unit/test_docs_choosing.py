"""The page about choosing quotes the run of all boundaries, and nothing else."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from lab.analysis.loaded import Loaded, load
from lab.analysis.quantities import format_value
from lab.results.record import Status

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/choosing.md").read_text(encoding="utf-8")
RUN = ROOT / "results/boundaries"
TABLE = [[cell.strip() for cell in line.strip("|").split("|")] for line in PAGE.splitlines() if line.startswith("| ")]
HEAD, *ROWS = TABLE
NAME = re.compile(r"`([\w.]+)`(?: \((\w[\w-]*)\))?")


@pytest.fixture(scope="module")
def loaded() -> Loaded:
    return load(RUN)


def test_every_arm_of_the_run_has_a_column(loaded: Loaded) -> None:
    assert HEAD[1:] == [arm.label for arm in loaded.arms]


def test_every_number_is_the_runs(loaded: Loaded) -> None:
    summary = loaded.summary()
    quantities = 0
    for title, *cells in ROWS:
        if (named := NAME.search(title)) is None:
            continue
        quantities += 1
        name, state = named.groups(default="")
        mine = summary[(summary["quantity"] == name) & (summary["state"] == state)].set_index("arm")
        for label, cell in zip(HEAD[1:], cells, strict=True):
            told = (
                format_value(float(mine["median"][label]), str(mine["unit"][label])) if label in mine.index else "–"
            )
            assert cell == told, (title, label)
    assert quantities >= 4


def test_every_count_of_questions_is_the_runs(loaded: Loaded) -> None:
    (cells,) = [row[1:] for row in ROWS if row[0].startswith("questions")]
    answers = loaded.answers
    told = answers[answers["status"] == Status.OK]
    for label, cell in zip(HEAD[1:], cells, strict=True):
        mine = told[told["arm"] == label]
        assert cell == str(sum(detail["reach"] == "open" for detail in mine["detail"])), label


def test_each_quantity_in_a_sentence_is_in_the_table() -> None:
    sentences = PAGE.partition("## By need")[2]
    rows = " ".join(row[0] for row in ROWS)
    named = set(re.findall(r"`((?:boot|memory|cpu|load)\.[\w.]+)`", sentences))
    assert named
    assert all(f"`{name}`" in rows for name in named), named
