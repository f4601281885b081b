"""``lab noisy`` beside a machine: a neighbour in a guest disturbs, within its size; the host stays responsive."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Iterator

import pytest
from comparing import LAB, make_scenario, only_run
from host_state import assert_unchanged, snapshot

from lab.analysis import Loaded, load
from lab.studies.noisy.analyse import OF_A_MACHINE, disturbances
from lab.studies.noisy.measure import feel_pulse

pytestmark = pytest.mark.nightly  # by day lab noisy runs with containers

RESPONSIVE_SECONDS = 1.0


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Loaded, list[float]]]:
    """One run on a microvm with a neighbour that takes the processors, and how late the host was meanwhile."""
    before = snapshot()
    out, scenario = tmp_path_factory.mktemp("out"), make_scenario(tmp_path_factory.mktemp("page"))
    words = ["--kind", "cpu", "--blocks", "1", "--seconds", "1", "--memory", "128M", "--cpus", "1"]
    words += ["--limits", "with"]
    argv = [*LAB, "noisy", str(scenario), "--on", "microvm", "--out", str(out), *words]
    late: list[float] = []
    ended = threading.Event()

    def feel() -> None:
        while not ended.is_set():
            late.append(feel_pulse(0.5)["most"])

    feeling = threading.Thread(target=feel)
    feeling.start()
    try:
        made = subprocess.run(argv, capture_output=True, text=True, timeout=600, check=False)
    finally:
        ended.set()
        feeling.join()
    assert made.returncode == 0, made.stderr
    yield load(only_run(out)), late
    assert_unchanged(before)


def test_a_neighbour_in_a_guest_disturbs_within_its_size(done: tuple[Loaded, list[float]]) -> None:
    loaded, _ = done
    (found,) = disturbances(loaded)
    assert found.limits == "with limits"
    assert found.survived == found.times == 1
    assert found.met == (OF_A_MACHINE["cpu"],) or "bound" in found.met[0]
    told = [detail["aggressor"] for detail in loaded.frame["detail"] if detail["kind"] == "cpu"]
    assert all(each["done"] > 0 for each in told), told


def test_the_host_stays_responsive_beside_machines(done: tuple[Loaded, list[float]]) -> None:
    _, late = done
    assert len(late) > 5
    assert sorted(late)[len(late) // 2] < RESPONSIVE_SECONDS / 10
    assert max(late) < RESPONSIVE_SECONDS
