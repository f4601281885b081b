"""``lab isolation ladder`` on real rungs: every one comes up, steps stop what they are for, nothing is left."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import preloaded
import pytest
from comparing import LAB, make_scenario, only_run
from usable import trouble

from lab.analysis import load
from lab.backends.gvisor import Gvisor
from lab.runtime.process import landlock
from lab.studies.ladder.analyse import MEMORY, START, costs, rows

pytestmark = pytest.mark.usefixtures("same_host")

PROBES = "host-processes,core-pattern,mount,keyrings,boot-id"
STEPS = ("mounts", "pid", "net", "ipc-uts", "user", "cgroup", "limits", "capabilities", "seccomp", "masks")
LAST = ("no-new-privs", "landlock")


@pytest.fixture(scope="module")
def scenario(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_scenario(tmp_path_factory.mktemp("page"))


def ladder(scenario: Path, out: Path, *words: str) -> subprocess.CompletedProcess[str]:
    argv = [*LAB, "isolation", "ladder", str(scenario), "--out", str(out), *words]
    return preloaded.run(argv, capture_output=True, text=True, timeout=250, check=False)


@pytest.mark.nightly
def test_every_rung_serves_and_is_measured_in_every_round(scenario: Path, tmp_path: Path) -> None:
    """The application answers on each: no mechanism breaks it, the network that a rung makes for itself included."""
    if not landlock.available():
        pytest.skip("this kernel has no Landlock")
    names = ("chroot", *STEPS, *LAST)
    done = ladder(scenario, tmp_path, "--rungs", ",".join(names), "--blocks", "2", "--seed", "5", "--no-probes")
    assert done.returncode == 0, done.stderr
    loaded = load(only_run(tmp_path))
    assert loaded.run.seed == 5
    assert [arm.label for arm in loaded.all_arms] == list(names)
    found = costs(loaded)
    assert {name: found[name, START].n for name in names} == dict.fromkeys(names, 2)
    orders = loaded.frame[loaded.frame["quantity"] == START].sort_values(["block", "position"])
    first, second = (orders[orders["block"] == block]["arm"].tolist() for block in (1, 2))
    assert sorted(first) == sorted(second) == sorted(names)
    assert first != second, "each round has an order of its own"
    assert "+ Landlock" in done.stdout
    assert (loaded.path / "report.html").stat().st_size > 10_000


def test_steps_stop_what_they_are_for(scenario: Path, tmp_path: Path) -> None:
    if not landlock.available():
        pytest.skip("this kernel has no Landlock")
    done = ladder(scenario, tmp_path, "--rungs", "mounts,pid,landlock", "--blocks", "1", "--probe", PROBES)
    assert done.returncode == 0, done.stderr
    stopped = {row.probe: row.stopped_by for row in rows(load(only_run(tmp_path)))}
    wanted = {"host-processes": "pid", "core-pattern": "landlock", "mount": "landlock", "keyrings": "", "boot-id": ""}
    assert stopped == wanted


def test_a_kernel_in_user_space_is_a_rung_where_it_is_named(
    scenario: Path, tmp_path: Path, missing: Callable[[str], None]
) -> None:
    """It stops what is the shared kernel's, and its guest's RAM, which is shared memory, counts."""
    if lacking := trouble(Gvisor):
        missing(lacking)
    done = ladder(scenario, tmp_path, "--rungs", "mounts,gvisor", "--blocks", "1", "--probe", "keyrings,boot-id")
    assert done.returncode == 0, done.stderr
    loaded = load(only_run(tmp_path))
    assert {row.probe: row.stopped_by for row in rows(loaded)} == {"keyrings": "gvisor", "boot-id": "gvisor"}
    frame = loaded.frame
    shared = frame[(frame["arm"] == "gvisor") & (frame["quantity"] == "memory.cgroup.shmem")]["value"]
    assert costs(loaded)["gvisor", MEMORY].median > shared.median() > 1 << 20
    assert "A kernel of its own (“gVisor”) stops 2 more, which the rungs" in (loaded.path / "report.md").read_text()


def test_an_unknown_rung_is_a_usage_error(scenario: Path, tmp_path: Path) -> None:
    done = ladder(scenario, tmp_path, "--rungs", "pid,moat")
    assert done.returncode == 2
    assert "no rung is called moat" in done.stderr
