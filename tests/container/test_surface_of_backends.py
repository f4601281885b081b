"""``lab isolation surface``: the filter evaluated, and as the kernel carries it out, say the same of every call."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from comparing import LAB, make_scenario
from host_state import assert_unchanged, snapshot

from lab.experiment.surface import SKIPPED


@pytest.fixture(autouse=True, scope="module")
def same_host() -> Iterator[None]:
    before = snapshot()
    queues = Path("/proc/sysvipc/msg").read_text()
    yield
    assert_unchanged(before, within_seconds=10)
    assert Path("/proc/sysvipc/msg").read_text() == queues, "a call that made something was made"


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory, same_host: None) -> dict[str, Any]:
    """All that the command says."""
    scenario = make_scenario(tmp_path_factory.mktemp("page"))
    backends = "process,container" + (",runc" if shutil.which("runc") else "")
    argv = [*LAB, "isolation", "surface", str(scenario), "--on", backends, "--json"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.fixture(scope="module")
def measured(told: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """By backend and name of the call."""
    return {backend: {call["name"]: call for call in calls} for backend, calls in told["backends"].items()}


def test_both_ways_agree_for_every_call_of_labs_container(measured: dict[str, dict[str, Any]]) -> None:
    calls = measured["container"]
    assert [name for name, call in calls.items() if call["agrees"] is False] == []
    assert sum(call["agrees"] is True for call in calls.values()) > 300
    assert calls["keyctl"]["outcome"] == "refused"
    assert calls["keyctl"]["seen"] == "EPERM"
    assert calls["personality"]["outcome"] == "by argument"
    assert {name for name, call in calls.items() if call["seen"] == "–"} <= set(SKIPPED)


def test_without_a_filter_nothing_is_refused(measured: dict[str, dict[str, Any]]) -> None:
    outcomes = {call["outcome"] for call in measured["process"].values()}
    assert outcomes <= {"allowed", "absent", "not called"}
    assert measured["process"]["keyctl"]["outcome"] == "allowed"


def test_runc_with_the_same_profile_decides_the_same(measured: dict[str, dict[str, Any]]) -> None:
    """But for calls that its libseccomp does not know: those it answers with ENOSYS."""
    if "runc" not in measured:
        pytest.skip("runc is not installed")
    calls = measured["runc"]
    differing = {name: call["seen"] for name, call in calls.items() if call["agrees"] is False}
    assert set(differing.values()) <= {"ENOSYS"}
    oldest = min((calls[name]["number"] for name in differing), default=10_000)
    assert oldest > calls["landlock_restrict_self"]["number"], "only calls of recent years"
    same = [name for name in calls if name not in differing]
    ours = measured["container"]
    assert {name: calls[name]["seen"] for name in same} == {name: ours[name]["seen"] for name in same}


def test_a_boundary_adds_no_system_call_to_a_request(told: dict[str, Any]) -> None:
    """Namespaces and filters decide about calls; they make none."""
    events = told["host_events"]
    if "not measured" in events["container"] or "not measured" in events["process"]:
        pytest.skip(f"perf: {events['container'].get('not measured') or events['process'].get('not measured')}")
    bare, contained = (events[name]["per_request"]["raw_syscalls:sys_enter"] for name in ("process", "container"))
    assert bare > 3, "accept, read, write at the least"
    assert contained == pytest.approx(bare, rel=0.3)


def test_function_tracing_is_measurable_or_the_reason_is_told(told: dict[str, Any]) -> None:
    assert told["host_kernel_functions"].startswith(("possible here (", "not measurable here: "))
