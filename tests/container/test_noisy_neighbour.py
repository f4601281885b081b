"""``lab noisy`` on real instances: neighbours disturb, limits hold, the host stays responsive, nothing is left."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import preloaded
import pytest
from applications import make
from comparing import LAB, only_run
from host_state import assert_unchanged, snapshot

from lab.analysis import Loaded, load
from lab.host.cgroup.control import ControlGroup
from lab.host.cgroup.hierarchy import host_hierarchies
from lab.studies.noisy.analyse import disturbances
from lab.studies.noisy.measure import feel_pulse

KINDS = "cpu,memory,forks"
QUICK = ("--blocks", "1", "--seconds", "1", "--memory", "64M", "--cpus", "0.2")
RESPONSIVE_SECONDS = 1.0
"""Later than that no user calls it responsive. Even a busy machine wakes a sleeper within a tenth of it."""


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Loaded, set[float], list[float], str]]:
    """One run of a folder that says nothing of ports or load; the memory bounds that were seen around its instances
    meanwhile, how late the host was, and what was said.
    """
    before = snapshot()
    out, folder = tmp_path_factory.mktemp("out"), make(tmp_path_factory.mktemp("page"), "everywhere")
    argv = [*LAB, "noisy", str(folder), "--on", "container", "--out", str(out), "--kind", KINDS, *QUICK]
    bounds: set[float] = set()
    late: list[float] = []
    with subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as running:
        said: list[str] = []
        assert running.stderr is not None
        reader = threading.Thread(target=lambda: said.append(running.stderr.read() if running.stderr else ""))
        reader.start()
        deadline = time.monotonic() + 400
        while running.poll() is None and time.monotonic() < deadline:
            late.append(feel_pulse(0.5)["most"])
            bounds |= bounds_around_keepers()
        running.kill()
        reader.join()
    assert running.returncode == 0, said
    yield load(only_run(out)), bounds, late, "".join(said)
    assert_unchanged(before)


def bounds_around_keepers() -> set[float]:
    """The memory limits of sessions in which somebody keeps neighbours."""
    mount = host_hierarchies().mount_of("memory")
    assert mount is not None
    found = set()
    for keeper in (mount / "lab").glob("*/keeper"):
        limit = ControlGroup.open(f"lab/{keeper.parent.name}").effective_limits().memory_bytes
        found |= {float(limit)} if limit is not None else set()
    return found


Done = tuple[Loaded, set[float], list[float], str]


@pytest.mark.nightly
def test_every_kind_is_looked_at_in_both_conditions(done: Done) -> None:
    loaded = done[0]
    seen = {(each.kind, each.limits) for each in disturbances(loaded)}
    assert seen == {(kind, limits) for kind in KINDS.split(",") for limits in ("with limits", "without limits")}
    assert loaded.run.ended_because == "done"
    aggressors = [detail["aggressor"] for detail in loaded.frame["detail"] if detail["kind"] != "quiet"]
    assert all(told.get("done", 0) + told.get("refused", 0) > 0 or "failed" in told for told in aggressors), (
        aggressors
    )


def test_limits_are_what_the_aggressor_runs_into(done: Done) -> None:
    met = {each.kind: each.met for each in disturbances(done[0]) if each.limits == "with limits"}
    assert "its memory limit (killed)" in met["memory"]
    assert "its limit of processes" in met["forks"]
    assert "its CPU limit" in met["cpu"]


@pytest.mark.nightly
def test_what_is_cached_is_limited_as_memory(tmp_path: Path) -> None:
    out, folder = tmp_path / "out", make(tmp_path, "everywhere")
    argv = [*LAB, "noisy", str(folder), "--on", "container", "--out", str(out), "--kind", "cache", *QUICK]
    preloaded.run(argv, capture_output=True, timeout=250, check=True)
    (held,) = (each for each in disturbances(load(only_run(out))) if each.limits == "with limits")
    assert any("memory limit" in name for name in held.met)


def test_the_victim_survives_behind_limits(done: Done) -> None:
    behind = [each for each in disturbances(done[0]) if each.limits == "with limits"]
    assert behind
    assert [each for each in behind if (each.survived, each.times) != (1, 1)] == []


def test_without_limits_there_is_still_a_bound(done: Done) -> None:
    loaded, bounds = done[:2]
    assert float(loaded.run.settings["bound"]["memory_bytes"]) in bounds
    free = {each.kind: each.met for each in disturbances(loaded) if each.limits == "without limits"}
    assert free
    assert all(name.startswith("only lab's bound") for met in free.values() for name in met)


def test_the_host_stays_responsive(done: Done) -> None:
    """A process of ours, outside all bounds, slept for 10 ms again and again all the while."""
    loaded, late = done[0], done[2]
    assert len(late) > 10
    assert sorted(late)[len(late) // 2] < RESPONSIVE_SECONDS / 10
    assert max(late) < RESPONSIVE_SECONDS
    told = loaded.frame[loaded.frame["quantity"] == "noisy.host_delay"]["value"]
    assert 0 <= told.max() < RESPONSIVE_SECONDS


def test_a_folder_of_one_s_own_is_looked_at_before_it_is_disturbed(done: Done) -> None:
    """The copy that is looked at leaves its session's group behind, which the bound is to be put on."""
    assert "port 8000 found by looking" in done[3]


@pytest.mark.parametrize("backend", ["podman", pytest.param("docker", marks=pytest.mark.nightly)])
def test_beside_an_engine_whose_programs_are_bounded_too(tmp_path: Path, backend: str) -> None:
    """They run already when the bound is made, since a copy was looked at; it holds for all of them."""
    before = snapshot()
    folder, out = make(tmp_path, "everywhere"), tmp_path / "out"
    with (folder / "Dockerfile").open("a") as file:
        file.write("STOPSIGNAL SIGKILL\n")  # as PID 1 it would let SIGTERM be, and four stops take ten seconds each
    words = [*LAB, "noisy", str(folder), "--on", backend, "--out", str(out), "--kind", "memory", *QUICK]
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as running:
        bounds: set[float] = set()
        deadline = time.monotonic() + 400
        while running.poll() is None and time.monotonic() < deadline:
            bounds |= bounds_around_keepers()
            time.sleep(0.2)
        running.kill()
        said = running.stderr.read() if running.stderr else ""
    assert running.returncode == 0, said
    loaded = load(only_run(out))
    assert loaded.run.settings["engines"] == [backend]
    assert float(loaded.run.settings["bound"]["memory_bytes"]) in bounds
    found = disturbances(loaded)
    assert {(each.limits, each.survived, each.times) for each in found} == {
        ("without limits", 1, 1), ("with limits", 1, 1)
    }  # fmt: skip
    (held,) = [each for each in found if each.limits == "with limits"]
    assert "its memory limit (killed)" in held.met
    assert_unchanged(before)


def test_a_scenario_without_load_has_no_victim(tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text('FROM scratch\nCMD ["/absent"]\n')
    (tmp_path / "scenario.toml").write_text('title = "idle"\n[readiness]\nstarted = true\n')
    done = preloaded.run([*LAB, "noisy", str(tmp_path)], capture_output=True, text=True, timeout=250, check=False)
    assert done.returncode == 2
    assert "has no load for a victim" in done.stderr
