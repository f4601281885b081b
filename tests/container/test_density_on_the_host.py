"""``lab density`` on real instances: it stacks, bursts, keeps its floor, and leaves nothing."""

from __future__ import annotations

import subprocess
from pathlib import Path

import preloaded
import pytest
from comparing import LAB, make_scenario, only_run

from lab.analysis import load

pytestmark = pytest.mark.usefixtures("same_host")


@pytest.fixture(scope="module")
def scenario(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_scenario(tmp_path_factory.mktemp("page"))


def density(scenario: Path, out: Path, *words: str) -> subprocess.CompletedProcess[str]:
    argv = [*LAB, "density", str(scenario), "--on", "process,container", "--out", str(out), *words]
    return preloaded.run(argv, capture_output=True, text=True, timeout=250, check=False)


def test_copies_are_stacked_and_started_at_once(scenario: Path, tmp_path: Path) -> None:
    done = density(scenario, tmp_path, "--up-to", "4", "--burst", "3", "--caches", "cold")
    assert done.returncode == 0, done.stderr
    frame = load(only_run(tmp_path)).frame
    for arm in ("process", "container"):
        charged = frame[(frame["arm"] == arm) & (frame["quantity"] == "density.charged")].set_index("block")["value"]
        assert charged.index.tolist() == [1, 2, 3, 4]
        assert charged[4] > charged[1] > 0  # a page of one copy may be charged to another, so no step is sure
        starts = frame[(frame["arm"] == arm) & (frame["quantity"] == "density.start")]["value"]
        assert (starts > 0).all()
        resident, read = (
            frame[(frame["arm"] == arm) & (frame["quantity"] == quantity)].set_index("block")["value"]
            for quantity in ("caches.resident", "density.read")
        )
        assert resident[1] == 0, "nobody has anything mapped"
        assert (resident[1:] > 0).all(), "busybox and lab's helper are, by the copies before"
        assert (read[1:] < read[1]).all(), "which a start need not fetch: by the other instrument"
        (burst,) = frame[(frame["arm"] == arm) & (frame["quantity"] == "density.burst")].to_dict("records")
        assert burst["block"] == 3
        assert len(burst["detail"]["each"]) == 3
    assert done.stderr.count("stopped by: the number asked for") == 2
    assert "in memory before the last" in done.stdout


def test_the_host_keeps_its_floor(scenario: Path, tmp_path: Path) -> None:
    done = density(scenario, tmp_path, "--up-to", "3", "--keep-free", "100000G")
    assert done.returncode == 1, "nothing was measured"
    assert "the floor of free memory" in done.stderr
    assert "--resume" not in done.stderr, "of a comparison alone"
