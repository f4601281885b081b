"""The page about lab.analysis: its examples run, and its table names the columns that there are."""

from __future__ import annotations

import doctest
import re
from pathlib import Path

import pytest

import lab
from lab.analysis.compare import COLUMNS as RATIOS
from lab.analysis.quantities import QUANTITIES
from lab.analysis.summary import COLUMNS as SUMMARY

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "analysis.md"


def test_the_examples_give_what_the_page_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    found = doctest.testfile(str(PAGE), module_relative=False, optionflags=doctest.REPORT_NDIFF)
    assert found.attempted > 15
    assert found.failed == 0


def test_every_column_is_explained() -> None:
    text = PAGE.read_text(encoding="utf-8")
    firsts = [line.split("|")[1] for line in text.splitlines() if line.startswith("|")]
    listed = re.findall(r"`(\w+)`", "\n".join(firsts))
    assert sorted(listed) == sorted(lab.load(str(ROOT / "results/sample")).frame.columns)
    told = set(re.findall(r"`(\w+)`", text))
    keys = {"quantity", "state", "arm", "metric", "baseline", "seems"}
    assert {*SUMMARY, *RATIOS} - keys <= told


def test_every_quantity_has_the_unit_that_the_list_says() -> None:
    seen = lab.load(str(ROOT / "results/sample")).frame.groupby("quantity")["unit"].agg(set)
    known = {name: units for name, units in seen.items() if name in QUANTITIES}
    assert len(known) > 30
    assert known == {name: {QUANTITIES[name].unit} for name in known}
