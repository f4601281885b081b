"""Whole reports of made-up runs, a few of each kind; and that these tests fail where the judge is broken.

The long ones, a thousand reports at a time, are in test_claims_nightly.py.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from claims import PAIRS, is_above, is_below, reports, row

from lab.analysis.inference import judge
from lab.analysis.inference.judge import EXPLORATORY, HEADLINE
from lab.experiment.plan import Plan, PlannedArm

REPORTS = 10
ORDER = ("process", "container", "microvm", "vm")


def keeps_its_promise(root: Path, **settings: float) -> bool:
    """Whether no more is claimed than is promised of the families of runs in which nothing differs."""
    claimed = [table[table["claim"]] for table in reports(root, REPORTS, **settings)]
    headlines = sum(
        bool(((each["family"] == HEADLINE) & (each["arm"] == arm)).any()) for each in claimed for arm in PAIRS
    )
    explored = sum(bool((each["family"] == EXPLORATORY).any()) for each in claimed)
    return is_below(headlines, REPORTS * len(PAIRS), 0.05) and is_below(explored, REPORTS, 0.05)


def test_where_nothing_differs_little_is_claimed_though_who_comes_last_is_slower(tmp_path: Path) -> None:
    assert keeps_its_promise(tmp_path, blocks=6, by_position=0.2)


def test_a_fifth_more_is_found_in_ten_blocks(tmp_path: Path) -> None:
    found = 0
    for table in reports(tmp_path, REPORTS, effects={("vm", "boot.total"): 1.2}):
        found += bool(row(table, "boot.total", "vm")["claim"])
    assert is_above(found, REPORTS, 0.8)


def test_it_is_seen_when_nothing_is_corrected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judge, "adjusted", lambda p_values, is_headline: p_values)
    assert not keeps_its_promise(tmp_path, blocks=6)


def test_it_is_seen_when_the_order_is_not_shuffled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def by_boundary(plan: Plan, block: int) -> tuple[PlannedArm, ...]:
        return tuple(sorted(plan.arms, key=lambda arm: ORDER.index(arm.backend)))

    monkeypatch.setattr(Plan, "order", by_boundary)
    assert not keeps_its_promise(tmp_path, blocks=6, by_position=0.2)


def of_two_blocks(root: Path) -> pd.DataFrame:
    (table,) = reports(root, 1, blocks=2, effects={("vm", "boot.total"): 9.0})
    return table


def test_what_has_no_p_is_never_claimed(tmp_path: Path) -> None:
    table = of_two_blocks(tmp_path)
    assert table["p"].isna().all()
    assert set(table["verdict"]) == {"not proven"}
    assert not table["claim"].any()


def test_it_is_seen_when_a_missing_p_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judge, "adjusted", lambda p_values, is_headline: np.nan_to_num(p_values, nan=0.0))
    assert of_two_blocks(tmp_path)["claim"].any()


def test_it_is_seen_when_what_died_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The vm boots in half the time where it boots at all."""
    from claims import write

    import lab
    from lab.analysis import compare

    folder = write(tmp_path / "run", 1, effects={("vm", "boot.total"): 0.5})
    lines = (folder / "samples.jsonl").read_text().splitlines()
    dead = [
        line.replace('"value": ', '"status": "timeout", "value": null, "was": ')
        if '"boot.total"' in line and '"arm": "vm"' in line and '"block": 1,' in line
        else line
        for line in lines
    ]
    assert dead != lines
    (folder / "samples.jsonl").write_text("\n".join(dead) + "\n")
    seen = row(lab.load(str(folder)).ratios(), "boot.total", "vm")
    assert (seen["n"], seen["verdict"]) == (9, "not proven")
    assert "failed at times" in seen["why"]
    monkeypatch.setattr(compare.Series, "missing", lambda *_: False)
    assert row(lab.load(str(folder)).ratios(), "boot.total", "vm")["claim"]


def test_what_is_claimed_is_the_same_wherever_it_is_shown(tmp_path: Path) -> None:
    """Table, CSV, JSON and tooltips: none of them knows a claim that the judge does not."""
    import json

    from claims import write

    from lab.reports.export import formats
    from lab.reports.material import Material

    folder = write(tmp_path / "run", 3, effects={("vm", "boot.total"): 3.0})
    material = Material.read(folder)
    judged = material.ratios.set_index(["quantity", "state", "arm"])["claim"]
    formats.csv(material, folder)
    formats.report_json(material, folder)
    told = pd.DataFrame(json.loads((folder / "report.json").read_text())["ratios"])
    for table in (pd.read_csv(folder / "ratios.csv", keep_default_na=False), told):
        shown = table.set_index(["quantity", "state", "arm"])["claim"].astype(str).str.lower() == "true"
        assert (shown.to_numpy() == judged.to_numpy()).all()
    for (quantity, state, arm), claim in judged.items():
        ratio = material.ratio(str(quantity), str(arm), str(state))
        assert ratio is not None
        assert ratio.claim == claim
    assert np.count_nonzero(judged) >= 1
