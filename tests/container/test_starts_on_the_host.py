"""``lab starts`` on real instances: each start, what the copy answers, many at once; and it leaves nothing."""

from __future__ import annotations

import subprocess
from pathlib import Path

import preloaded
import pytest
from comparing import LAB, make_scenario, only_run
from host_state import assert_unchanged, snapshot

from lab.analysis import load


@pytest.fixture(scope="module")
def scenario(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_scenario(tmp_path_factory.mktemp("page"))


def starts(scenario: Path, out: Path, *words: str) -> subprocess.CompletedProcess[str]:
    argv = [*LAB, "starts", str(scenario), "--on", "process,container", "--out", str(out), "--seed", "3", *words]
    return preloaded.run(argv, capture_output=True, text=True, timeout=250, check=False)


def test_one_by_one_at_once_and_staggered(scenario: Path, tmp_path: Path) -> None:
    before = snapshot()
    done = starts(scenario, tmp_path, "-n", "6", "--at-once", "3", "--every", "0.001s", "--stock", "2", "--fork", "2")
    assert done.returncode == 0, done.stderr
    assert_unchanged(before)
    frame = load(only_run(tmp_path)).frame
    frame = frame[frame["block"] > 0]
    assert frame["value"].notna().all(), frame["text"].tolist()
    for arm in ("process", "container"):
        own = frame[frame["arm"] == arm]
        for quantity in ("start", "command", "answer", "pause", "resume", "stop"):
            assert own[own["quantity"] == f"starts.{quantity}"]["block"].tolist() == [1, 2, 3, 4, 5, 6]
        for quantity in ("at_once", "staggered"):
            together = own[own["quantity"] == f"starts.{quantity}"]
            assert together["block"].tolist() == [3, 3, 3]
            assert together["position"].tolist() == [0, 1, 2]
            for name in ("pss", "shared", "private"):
                assert (own[own["quantity"] == f"starts.{quantity}.{name}"]["value"] > 0).all()
        handed = own[own["quantity"] == "starts.handed_out"]
        assert sorted(handed["block"]) == [1, 2, 3, 4, 5, 6]
        ready = [detail["stood_ready"] for detail in handed["detail"]]
        assert ready.count(True) >= 2, "those of the stock"
        assert ready.count(False) >= 1, (
            "six requests in as many thousandths of a second, and no start takes less than some tens"
        )
        median = own.groupby("quantity")["value"].median()
        assert median["starts.answer"] < median["starts.start"], "which is what a copy in stock saves"
        assert median["starts.resume"] < median["starts.start"], "and one that stands still"
    assert "process" in load(only_run(tmp_path)).run.settings["not_forked"], "and why"
    turns = frame[frame["quantity"] == "starts.start"].pivot_table(index="block", columns="arm", values="position")
    assert set(turns["process"]) == {0, 1}, "neither backend is always the first"


@pytest.mark.nightly
def test_a_crowd_that_would_not_fit_is_not_started(scenario: Path, tmp_path: Path) -> None:
    done = starts(scenario, tmp_path, "-n", "1", "--at-once", "2", "--keep-free", "100000G")
    assert done.returncode == 0, done.stderr
    frame = load(only_run(tmp_path)).frame
    assert "starts.at_once" not in set(frame["quantity"])
    assert "2 copies would take more memory than is to be used" in done.stderr
    assert "too few to tell even a median" in done.stdout
