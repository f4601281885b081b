"""``lab isolation surface``: the filter evaluated, and as the kernel carries it out, say the same of every call.

And what the instances make of the host is counted from their first call on, the same for the same application.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import preloaded
import pytest
from comparing import LAB, make_scenario
from host_state import RUNTIME, assert_unchanged, snapshot, wait_until
from usable import trouble

from lab.backends.gvisor import Gvisor
from lab.errors import LabError
from lab.host.kernel import tracefs
from lab.studies.surface.reach import SKIPPED


@pytest.fixture(autouse=True, scope="module")
def same_host() -> Iterator[None]:
    before = snapshot()
    queues = message_queues()
    yield
    assert_unchanged(before)
    assert message_queues() <= queues, "a call that made something was made"
    assert wait_until(lambda: orphaned_traces() == []), "another lab's may just be going, after its session"


def message_queues() -> set[str]:
    """The ids of the host's (sysvipc(7))."""
    return {line.split()[1] for line in Path("/proc/sysvipc/msg").read_text().splitlines()[1:]}


def orphaned_traces() -> list[str]:
    """Instances of the kernel's tracing with lab's mark and no session to which they belong."""
    try:
        root = tracefs.open_root()
    except LabError:
        return []
    try:
        names = [path.name for path in Path(f"/proc/self/fd/{root}/instances").iterdir()]
        return [name for name in names if name.startswith("lab-") and not (RUNTIME / name[4:]).exists()]
    finally:
        os.close(root)


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory, same_host: None) -> dict[str, Any]:
    """All that the command says."""
    scenario = make_scenario(tmp_path_factory.mktemp("page"))
    backends = "process,container" + (",runc" if shutil.which("runc") else "")
    backends += "" if trouble(Gvisor) else ",gvisor"
    out = str(tmp_path_factory.mktemp("results"))
    argv = [*LAB, "isolation", "surface", str(scenario), "--on", backends, "--json", "--blocks", "1", "--out", out]
    done = preloaded.run(argv, capture_output=True, text=True, timeout=250, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.fixture(scope="module")
def measured(told: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """By backend and name of the call."""
    return {name: {call["name"]: call for call in each["calls"]} for name, each in told["backends"].items()}


@pytest.fixture(scope="module")
def made(told: dict[str, Any]) -> dict[tuple[str, str, str], dict[str, Any]]:
    """What was made of the host, by backend, state and side."""
    if why := told["not_measurable"].get("system calls made of the host"):
        pytest.skip(why)
    return {(each["arm"], each["state"], each["side"]): each for each in told["host_calls"]}


@pytest.mark.nightly
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


def test_the_filter_in_force_says_what_happens(told: dict[str, Any], measured: dict[str, dict[str, Any]]) -> None:
    """Read back from the kernel: that of lab's container, and that of a runtime with an older libseccomp."""
    if why := told["backends"]["container"]["in_force"]["not_read"]:
        pytest.skip(why)
    assert told["backends"]["process"]["in_force"]["filters"] == 0
    for name in set(measured) - {"process", "gvisor", "gvisor's kernel"}:
        held = told["backends"][name]["in_force"]
        assert held["filters"] == 1
        made = {call: each["seen"] for call, each in measured[name].items() if each["seen"] != "–"}
        refused = {call for call, answer in held["answers"].items() if answer != "allowed"} & set(made)
        assert {call: held["answers"][call] for call in refused} == {call: made[call] for call in refused}
        assert len(refused) > 60


def test_a_kernel_in_user_space_may_ask_the_host_for_little(
    told: dict[str, Any], measured: dict[str, dict[str, Any]], missing: Callable[[str], None]
) -> None:
    """It kills who makes what it does not name. The gofer's filter, beside it, lets every openat(2) through."""
    if lacking := trouble(Gvisor):
        missing(lacking)
    if why := told["backends"]["gvisor's kernel"]["in_force"]["not_read"]:
        pytest.skip(why)
    outcomes = {name: call["outcome"] for name, call in measured["gvisor's kernel"].items()}
    assert {outcomes[name] for name in ("open", "socket", "mount", "execve", "setns")} == {"killed"}
    assert outcomes["openat"] == outcomes["futex"] == "by argument"
    assert sum(outcome == "killed" for outcome in outcomes.values()) > 200
    assert measured["gvisor"]["socket"]["outcome"] == "allowed", "of its own kernel"


def test_a_start_is_counted_from_its_first_call(
    made: dict[tuple[str, str, str], dict[str, Any]], measured: dict[str, dict[str, Any]]
) -> None:
    """What only the processes that put a container up ever call, and what only the application does."""
    up, application = made["container", "start", "setup"]["calls"], made["container", "start", "instance"]["calls"]
    assert up["pivot_root"] == up["sethostname"] == up["seccomp"] == 1
    assert up["move_mount"] > 10
    assert not {"pivot_root", "mount", "move_mount", "fsopen", "seccomp", "capset"} & set(application)
    assert application["listen"] == application["bind"] == 1
    assert "listen" not in up
    bare = made["process", "start", "setup"]["calls"]
    assert not {"pivot_root", "sethostname", "seccomp"} & set(bare)
    assert bare["chroot"] == 1
    if "gvisor" in measured:
        up, kernel = made["gvisor", "start", "setup"]["calls"], made["gvisor", "start", "instance"]["calls"]
        assert kernel["futex"] > up["futex"], "the Sentry is the instance, and what made it is not"
    assert all(each["lost"] == 0 for each in made.values())


def test_a_boundary_adds_no_system_call_to_an_application(made: dict[tuple[str, str, str], dict[str, Any]]) -> None:
    """Namespaces and filters decide about calls; they make none."""
    bare, contained = (made[name, "start", "instance"] for name in ("process", "container"))
    assert contained["total"] == pytest.approx(bare["total"], rel=0.1)
    bare, contained = (made[name, "loaded", "instance"] for name in ("process", "container"))
    assert bare["total"] >= 3, "accept, read, write at the least"
    assert contained["total"] == pytest.approx(bare["total"], rel=0.3)


def test_there_is_a_page_with_its_tables(told: dict[str, Any], measured: dict[str, dict[str, Any]]) -> None:
    folder = Path(told["folder"])
    assert "both agree" in (folder / "report.html").read_text()
    assert (folder / "surface-calls.csv").read_text().count("\n") == 1 + sum(map(len, measured.values()))


def test_functions_are_traced_or_the_reason_is_told(told: dict[str, Any]) -> None:
    why = told["not_measurable"].get("functions of the host's kernel")
    assert why or any(each["names"] for each in told["host_functions"])
