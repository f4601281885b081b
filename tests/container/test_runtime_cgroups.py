"""Control groups for real, in each mode that this host can show: as it is, and v1 without its v2 tree."""

from __future__ import annotations

import os
import subprocess
import time
import uuid
from collections.abc import Iterator
from dataclasses import replace

import pytest

from lab.errors import LabError
from lab.host.cgroup.control import ControlGroup
from lab.host.cgroup.hierarchy import Hierarchies, Mode, host_hierarchies
from lab.model import Limits
from lab.runtime import bundle
from lab.runtime.cgroup import devices
from lab.runtime.cgroup.instances import limited

LIMITS = Limits(memory_bytes=64 << 20, cpus=0.5, pids=20)


@pytest.fixture(params=["as it is", "v1 alone"])
def hierarchies(request: pytest.FixtureRequest) -> Hierarchies:
    found = host_hierarchies()
    if request.param == "as it is":
        return found
    if found.mode is Mode.V2:
        pytest.skip("this host has no v1 hierarchies")
    return replace(found, unified=None)


@pytest.fixture
def group(hierarchies: Hierarchies) -> Iterator[ControlGroup]:
    made = limited(f"lab/{uuid.uuid4().hex[:8]}/one", LIMITS, hierarchies=hierarchies)
    yield made
    made.kill()
    made.remove()
    assert not made.exists()


@pytest.fixture
def sleeper(group: ControlGroup) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(["sleep", "1000"])
    group.add(process.pid)
    yield process
    process.kill()
    process.wait()


def test_limits_are_read_back(group: ControlGroup) -> None:
    assert group.effective_limits() == LIMITS


def test_a_frozen_group_is_killed(group: ControlGroup, sleeper: subprocess.Popen[bytes]) -> None:
    assert group.processes() == {sleeper.pid}
    group.freeze()
    group.kill()
    assert group.processes() == set()
    assert sleeper.wait(120) == -9


def test_a_zombie_does_not_keep_the_group(group: ControlGroup, sleeper: subprocess.Popen[bytes]) -> None:
    group.kill()
    assert sleeper.returncode is None, "nobody has reaped it"
    group.remove()
    assert not group.exists()


def test_a_living_process_does(group: ControlGroup, sleeper: subprocess.Popen[bytes]) -> None:
    with pytest.raises(LabError, match=f"living processes in it: {sleeper.pid}"):
        group.remove(0.05)


def test_a_group_is_made_once(group: ControlGroup) -> None:
    with pytest.raises(LabError, match="exists"):
        limited(group.path, Limits(), hierarchies=group.hierarchies)
    assert group.effective_limits() == LIMITS, "the first one is none the worse"


def test_groups_below_are_removed_too(group: ControlGroup) -> None:
    for directory in group.directories:
        (directory / "below").mkdir()
    group.remove()
    assert not group.exists()


def test_cpu_time_is_charged(group: ControlGroup) -> None:
    process = subprocess.Popen(["sh", "-c", "read go; i=0; while [ $i -lt 60000 ]; do i=$((i+1)); done"], stdin=-1)
    group.add(process.pid)
    process.communicate(b"\n", timeout=250)
    used = group.cpu()
    assert used.total_seconds > 0
    # v1 counts these two in ticks of 10 ms, each given to whoever runs when it falls: on a busy host some go astray
    assert used.total_seconds == pytest.approx(used.user_seconds + used.system_seconds, rel=0.2, abs=0.08)


def test_devices_are_guarded(group: ControlGroup) -> None:
    devices.guard(group.group, bundle.DEVICE_RULES)
    script = "read go; head -c 1 /dev/zero >/dev/null && echo zero; head -c 0 /dev/loop-control 2>&1; : </dev/kmsg"
    process = subprocess.Popen(["sh", "-c", script], stdin=-1, stdout=-1, stderr=subprocess.STDOUT)
    group.add(process.pid)
    output, _ = process.communicate(b"\n", timeout=250)
    assert b"zero" in output
    assert b"/dev/kmsg: Operation not permitted" in output


def test_removal_is_idempotent_and_prunes_parents(group: ControlGroup) -> None:
    parents = [directory.parent for directory in group.directories]
    group.remove()
    group.remove()
    deadline = time.monotonic() + 60
    while any(parent.exists() for parent in parents) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not any(parent.exists() for parent in parents)


def test_a_session_weighs_as_much_as_one_task_per_cpu(group: ControlGroup, hierarchies: Hierarchies) -> None:
    mount = hierarchies.mount_of("cpu")
    assert mount is not None
    weights = {"cpu.shares": 1024, "cpu.weight": 100}
    session = mount / group.path.parent
    found = {name: int((session / name).read_text()) for name in weights if (session / name).exists()}
    assert found
    assert found == {name: weights[name] * (os.cpu_count() or 1) for name in found}
