"""Sessions: what they do to intervals, and runs that are merged into one of several sessions."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from synthetic import write_run

from lab.analysis import load
from lab.analysis.inference import estimate
from lab.analysis.inference import statistics as st
from lab.errors import ResultsError
from lab.reports.material import Material
from lab.reports.words.statements import clock
from lab.results.codec import decode_sample, encode_sample
from lab.results.merge import merge
from lab.results.record import Run
from lab.results.store import RunFolder

SESSIONS = np.repeat(np.arange(1, 6), 6)  # five sessions of six blocks


def simulated(rounds: int, truth: float, seed: int) -> st.Floats:
    """Log ratios of two arms, a row per run; sessions move them by 10 %, blocks within by 5 %."""
    generator = np.random.default_rng(seed)
    return (
        math.log(truth)
        + generator.normal(0.0, 0.10, (rounds, 5))[:, SESSIONS - 1]
        + generator.normal(0.0, 0.05, (rounds, 30))
    )


def test_intervals_over_sessions_cover_what_those_over_blocks_miss() -> None:
    logs = simulated(2000, 1.3, 3)
    honest, naive = estimate.estimates(logs, SESSIONS), estimate.estimates(logs)
    assert 0.93 <= ((honest["low"] <= 1.3) & (honest["high"] >= 1.3)).mean() <= 0.97
    assert ((naive["low"] <= 1.3) & (naive["high"] >= 1.3)).mean() < 0.75


def test_where_nothing_differs_sessions_claim_as_seldom_as_promised() -> None:
    logs = simulated(2000, 1.0, 4)
    assert 0.03 <= (estimate.estimates(logs, SESSIONS)["p"] <= 0.05).mean() <= 0.07
    assert (estimate.estimates(logs)["p"] <= 0.05).mean() > 0.25


def test_the_median_of_few_sessions_is_that_of_their_medians() -> None:
    values = np.array([1.0, 1.1, 9.0, 2.0, 2.1, 2.2, 3.0, 3.1, 3.2])
    found = estimate.median_interval(values, sessions=np.repeat([1, 2, 3], 3))
    assert found == pytest.approx(estimate.median_interval(np.array([1.1, 2.1, 3.1])))


def three_runs(root: Path) -> list[RunFolder]:
    return [write_run(root / str(seed), blocks=3, seed=seed, bad_luck=False) for seed in (1, 2, 3)]


def test_runs_of_the_same_thing_become_one_of_several_sessions(tmp_path: Path) -> None:
    runs = three_runs(tmp_path)
    merged = merge(runs, tmp_path / "out")
    loaded = load(merged.path)
    assert sum(len(load(run.path).frame) for run in runs) == len(loaded.frame)
    measured = loaded.measured
    assert measured.groupby("session")["block"].unique().map(list).to_dict() == {
        1: [1, 2, 3], 2: [4, 5, 6], 3: [7, 8, 9]
    }  # fmt: skip
    assert set(loaded.frame.loc[loaded.frame["warmup"], "block"]) == {0, -1, -2}
    assert (loaded.blocks, merged.run.settings["sessions"]) == (9, 3)
    second = load(runs[1].path).measured["value"].to_numpy()
    np.testing.assert_array_equal(measured[measured["session"] == 2]["value"].to_numpy(), second)
    assert len(list((merged.path / "logs").iterdir())) == sum(
        len(list((run.path / "logs").iterdir())) for run in runs
    )
    said = dict(clock(Material(loaded)))
    assert "Student's t over the sessions" in said["Sessions"]
    assert runs[2].run.name in said["Stopping"]


def test_two_sessions_are_compared_by_blocks_and_the_report_says_so(tmp_path: Path) -> None:
    merged = merge(three_runs(tmp_path)[:2], tmp_path / "out")
    assert "may be too narrow" in dict(clock(Material.read(merged.path)))["Sessions"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda run: replace(run, host={**run.host, "identity": "another"}), "differ in the host "),
        (lambda run: replace(run, limits={**run.limits, "memory_bytes": 1}), "differ in the limits"),
        (lambda run: replace(run, image={**run.image, "digest": "sha256:0"}), "differ in the image"),
        (lambda run: replace(run, arms=run.arms[:2]), "differ in the backends"),
        (lambda run: replace(run, settings={**run.settings, "host": {"caches": "cold"}}), "how the host was set"),
        (lambda run: replace(run, ended_because="interrupted"), "is not complete: interrupted"),
    ],
)
def test_what_is_not_the_same_is_not_merged(tmp_path: Path, change: Callable[[Run], Run], reason: str) -> None:
    first, second, _ = three_runs(tmp_path)
    second.run = change(second.run)
    with pytest.raises(ResultsError, match=reason) as caught:
        merge([first, second], tmp_path / "out")
    assert caught.value.hint
    assert not (tmp_path / "out").exists()


def test_a_run_is_not_merged_with_itself(tmp_path: Path) -> None:
    first = three_runs(tmp_path)[0]
    with pytest.raises(ResultsError, match="two different runs"):
        merge([first, RunFolder.open(first.path)], tmp_path / "out")


def test_a_sample_from_before_there_were_sessions_is_of_the_first(tmp_path: Path) -> None:
    sample = next(iter(three_runs(tmp_path)[0].samples()))
    old: dict[str, Any] = json.loads(encode_sample(sample))
    del old["session"]
    assert decode_sample(json.dumps(old)) == sample
