"""Sessions: what they do to intervals, and runs that are merged into one of several sessions."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from synthetic import write_run

from lab.analysis import inference, load
from lab.analysis import statistics as st
from lab.errors import ResultsError
from lab.reports.material import Material
from lab.reports.words import clock
from lab.results.codec import decode_sample, encode_sample
from lab.results.merge import merge
from lab.results.record import Run
from lab.results.store import RunFolder

SESSIONS = np.repeat(np.arange(1, 6), 6)  # five sessions of six blocks


def simulated(generator: np.random.Generator, truth: float) -> tuple[st.Floats, st.Floats]:
    """Two arms; sessions move their ratio by 10 %, blocks within by 5 %."""
    chance = generator.normal(0.0, 0.10, 5)[SESSIONS - 1] + generator.normal(0.0, 0.05, 30)
    below = np.exp(generator.normal(0.0, 0.03, 30))
    return (below * truth * np.exp(chance))[:, None], below[:, None]


def test_intervals_over_sessions_cover_what_those_over_blocks_miss() -> None:
    generator, rounds, covered, naive = np.random.default_rng(3), 600, 0, 0
    draws = st.resamples_of_sessions(SESSIONS, 1, "key", 10)
    plain = st.resamples(30, 1, "key", 200)
    for _ in range(rounds):
        above, below = simulated(generator, 1.3)
        _, low, high = inference.ratio_interval(above, below, draws, SESSIONS)
        covered += low <= 1.3 <= high
        _, low, high = inference.ratio_interval(above, below, plain)
        naive += low <= 1.3 <= high
    assert 0.92 <= covered / rounds <= 0.98
    assert naive / rounds < 0.75


def test_where_nothing_differs_sessions_claim_as_seldom_as_promised() -> None:
    generator = np.random.default_rng(4)
    claimed = [inference.p_value(*simulated(generator, 1.0), SESSIONS) <= 0.05 for _ in range(1000)]
    assert 0.03 <= np.mean(claimed) <= 0.07
    generator = np.random.default_rng(4)
    as_blocks = [inference.p_value(*simulated(generator, 1.0)) <= 0.05 for _ in range(300)]
    assert np.mean(as_blocks) > 0.25


def test_the_median_of_few_sessions_is_that_of_their_medians() -> None:
    values = np.array([1.0, 1.1, 9.0, 2.0, 2.1, 2.2, 3.0, 3.1, 3.2])
    low, high = inference.median_interval(values, sessions=np.repeat([1, 2, 3], 3))
    assert (low, high) == pytest.approx(inference.median_interval(np.array([1.1, 2.1, 3.1])))
    assert inference.median_interval(values, sessions=np.repeat([1, 2], [4, 5])) == inference.median_interval(values)


def test_resamples_keep_sessions_together() -> None:
    sessions = np.array([1, 1, 2, 2, 2, 3], dtype=np.int64)
    draws = st.resamples_of_sessions(sessions, 7, "key", 500)
    assert draws.shape == (500, 9)  # three sessions of as many blocks as the longest has
    drawn = sessions[draws].reshape(500, 3, 3)
    assert (drawn == drawn[:, :, :1]).all()
    assert set(draws.ravel()) == set(range(6))
    assert (draws == st.resamples_of_sessions(sessions, 7, "key", 500)).all()


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
