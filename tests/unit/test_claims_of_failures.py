"""What is claimed of a backend that failed at times: never that it is better, or the same."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from claims import write

import lab
from lab.analysis import compare
from lab.analysis.questions.conditions import Outcome, judge, parse
from lab.reports import tables
from lab.reports.material import Material
from lab.studies.compare.report.verdict import verdict

QUIET = 0.005
"""Ten blocks of so little noise prove that equals are the same."""


def failing(folder: Path, arm: str, blocks: Collection[int]) -> Path:
    """The run as it were had that arm not come up in those blocks: nothing but its boot was observed then."""
    kept = []
    for line in (folder / "samples.jsonl").read_text().splitlines():
        one = json.loads(line)
        if one["arm"] == arm and one["block"] in blocks:
            if one["quantity"] != "boot.total":
                continue
            one |= {"value": None, "status": "timeout", "text": "no answer within 60 s"}
        kept.append(json.dumps(one))
    (folder / "samples.jsonl").write_text("\n".join(kept) + "\n")
    return folder


def polled(folder: Path, every: float) -> Path:
    """The run as it were had all of it been polled so coarsely."""
    lines = [json.loads(line) | {"resolution": every} for line in (folder / "samples.jsonl").read_text().splitlines()]
    (folder / "samples.jsonl").write_text("\n".join(json.dumps(line) for line in lines) + "\n")
    return folder


def verdicts(folder: Path, arm: str) -> pd.DataFrame:
    table = lab.load(str(folder)).ratios()
    return table[table["arm"] == arm].set_index(["quantity", "state"])


def test_what_failed_is_the_same_in_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = failing(write(tmp_path / "run", 1, own=QUIET, shared=QUIET), "container", {2, 5})
    found = verdicts(folder, "container")
    assert "the same" not in set(found["verdict"])
    assert found.loc[("memory.pss", "idle"), "why"] == "it failed at times: the same only where it did not"
    assert verdicts(folder, "microvm").loc[("memory.pss", "idle"), "verdict"] == "the same"
    monkeypatch.setattr(compare.Series, "missing", lambda *_: False)
    assert verdicts(folder, "container").loc[("memory.pss", "idle"), "verdict"] == "the same"


@pytest.mark.parametrize(("every", "wanted"), [(0.0005, "the same"), (0.03, "not proven")])
def test_polling_bars_what_it_could_hide_and_no_more(tmp_path: Path, every: float, wanted: str) -> None:
    """The values are about 1, so that 0.0005 is a hundredth of the margin, and 0.03 more than half of it."""
    found = verdicts(polled(write(tmp_path / "run", 1, own=QUIET, shared=QUIET), every), "vm")
    assert set(found.loc[["memory.pss", "boot.total"], "verdict"]) == {wanted}


def test_half_of_its_starts_lost_is_in_the_headline(tmp_path: Path) -> None:
    material = Material.read(failing(write(tmp_path / "run", 1), "vm", {1, 3, 5, 7, 9}))
    assert "of vm (emulated) 5 of 10 failed" in verdict(material)[0]
    (row,) = (row for row in tables.headline(material).rows if row.arm == "vm")
    assert (row.cells[0].text, row.cells[0].note) == ("–", "5 of 10 failed")


def test_a_baseline_that_is_lost_is_named(tmp_path: Path) -> None:
    material = Material.read(failing(write(tmp_path / "run", 1), "process", range(1, 9)))
    assert "of process 8 of 10 failed" in verdict(material)[0]


@pytest.mark.parametrize(
    ("lost", "text", "outcome"),
    [
        ((), "boot.median(vm) < 2", Outcome.HOLDS),
        ((4,), "boot.median(vm) < 2", Outcome.HOLDS),  # one more that is longer does not lift the median so far
        ((1, 3, 5, 7, 9), "boot.median(vm) < 2", Outcome.NOT),
        ((1, 3, 5, 7, 9), "boot.median(vm) > 2", Outcome.PERHAPS),
        ((1, 3, 5, 7, 9), "boot.median(vm) > 0.5", Outcome.HOLDS),
        ((), "memory.median(vm) < 2", Outcome.HOLDS),
        ((4,), "memory.median(vm) < 2", Outcome.PERHAPS),
        ((4,), "memory.median(vm) > 0.5", Outcome.HOLDS),
        ((), "boot.ratio(vm, process) < 2", Outcome.HOLDS),
        ((4,), "boot.ratio(vm, process) < 2", Outcome.PERHAPS),
        ((4,), "boot.ratio(process, vm) > 0.5", Outcome.PERHAPS),
        ((4,), "load.ratio(vm, process) > 0.5", Outcome.PERHAPS),
        ((4,), "load.ratio(vm, process) < 2", Outcome.HOLDS),
    ],
)
def test_no_condition_holds_by_those_that_lived(
    tmp_path: Path, lost: tuple[int, ...], text: str, outcome: Outcome
) -> None:
    loaded = lab.load(str(failing(write(tmp_path / "run", 1), "vm", lost)))
    found: Any = judge(parse(text), loaded)
    assert found.outcome is outcome, found
