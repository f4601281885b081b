"""linux.resources on cgroup v2 for real. Not collected by itself: tests/vm/test_cgroup_v2.py runs it in a guest."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lab.errors import GroupGone, LimitError
from lab.host.cgroup import mounted
from lab.host.cgroup.control import ControlGroup
from lab.host.cgroup.group import Group
from lab.runtime.cgroup import resources, stats
from lab.runtime.config import schema
from lab.runtime.config.model import Resources

MIB = 1 << 20


def of(value: dict[str, Any]) -> Resources:
    read = schema.read(Resources, value, "linux.resources", schema.refuse)
    assert isinstance(read, Resources)
    return read


@pytest.fixture
def group() -> Iterator[Group]:
    assert mounted.host().is_v2
    made = Group("lab/inside/one")
    yield made
    made.kill()
    made.remove(keep_parents=False)
    assert not Group("lab/inside/one").exists()


def start(group: Group, script: str) -> subprocess.Popen[bytes]:
    """A shell that is in the group before it runs ``script``."""
    shell = subprocess.Popen(
        ["sh", "-c", f"read go; {script}"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    group.add(shell.pid)
    assert shell.stdin is not None
    shell.stdin.write(b"\n")
    shell.stdin.close()
    shell.stdin = None  # for communicate
    return shell


def disk() -> str:
    return Path("/sys/block/vda/dev").read_text().strip()


def test_a_group_tells_what_it_used_until_it_is_gone(group: Group) -> None:
    group.make()
    opened = ControlGroup.open(group.path)
    assert opened.cpu().total_seconds == 0
    assert opened.memory().limit_bytes is None
    group.remove()
    for read in (opened.cpu, opened.memory, opened.effective_limits, opened.limit_hits):
        with pytest.raises(GroupGone):
            read()


def test_everything_is_written_and_holds(group: Group) -> None:
    major, minor = map(int, disk().split(":"))
    limits = {
        "memory": {"limit": 64 * MIB, "swap": 96 * MIB, "reservation": 16 * MIB},
        "cpu": {"shares": 2048, "quota": 50_000, "period": 100_000, "cpus": "0", "mems": "0"},
        "pids": {"limit": 33},
        "blockIO": {
            "throttleReadBpsDevice": [{"major": major, "minor": minor, "rate": MIB}],
            "throttleWriteIOPSDevice": [{"major": major, "minor": minor, "rate": 77}],
        },
        "unified": {"memory.high": str(48 * MIB), "cgroup.max.depth": "3"},
    }
    resources.create(group, of(limits))
    held = {
        "memory.max": str(64 * MIB), "memory.swap.max": str(32 * MIB), "memory.low": str(16 * MIB),
        "memory.high": str(48 * MIB), "cpu.weight": "79", "cpu.max": "50000 100000", "cpuset.cpus": "0",
        "cpuset.mems": "0", "pids.max": "33", "cgroup.max.depth": "3",
        "io.max": f"{disk()} rbps={MIB} wbps=max riops=max wiops=77",
    }  # fmt: skip
    assert {name: group.read(name.partition(".")[0], name) for name in held} == held


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        ({"memory": {"swappiness": 5}}, "memory.swappiness"),
        ({"network": {"classID": 5}}, "network.classID: this host has no net_cls"),
        ({"unified": {"nothing.max": "1"}}, "nothing.max .* no nothing controller"),
        ({"unified": {"memory.nothing": "1"}}, "memory.nothing"),
        ({"hugepageLimits": [{"pageSize": "3MB", "limit": 0}]}, "hugepageLimits 3MB"),
    ],
)
def test_what_can_not_be_done_leaves_nothing(value: dict[str, Any], complaint: str, group: Group) -> None:
    with pytest.raises(LimitError, match=complaint):
        resources.create(group, of(value))
    assert not group.exists()


def test_devices_are_guarded_by_a_program_that_an_update_replaces(group: Group) -> None:
    look = "for name in null kmsg; do : <>/dev/$name && echo $name; done 2>/dev/null"
    resources.create(group, of({"devices": [{"allow": False, "access": "rwm"}]}))
    assert start(group, look).communicate(timeout=250)[0] == b"null\n"
    allowed = [
        {"allow": False, "access": "rwm"},
        {"allow": True, "type": "c", "major": 1, "minor": 11, "access": "rw"},
    ]
    resources.update(group, of({"devices": allowed}))
    assert start(group, look).communicate(timeout=250)[0] == b"null\nkmsg\n"


def test_limits_change_while_it_runs(group: Group) -> None:
    resources.create(group, of({"cpu": {"quota": 20_000}, "pids": {"limit": 20}}))
    shell = start(group, "x=$(yes xxxxxxxxxxxxxxx | head -c 12000000); echo full; sleep 600; :")  # no exec
    assert shell.stdout is not None
    assert shell.stdout.readline() == b"full\n"
    resources.update(group, of({"cpu": {"period": 50_000}, "memory": {"limit": 100 * MIB, "swap": -1}}))
    assert group.read("cpu", "cpu.max") == "20000 50000"
    assert group.read("memory", "memory.max") == str(100 * MIB)
    with pytest.raises(LimitError, match="in use"):
        resources.update(group, of({"memory": {"limit": 4 * MIB, "checkBeforeUpdate": True}}))
    data: Any = stats.event(group, "one")["data"]
    assert data["memory"]["usage"]["usage"] > 10_000_000
    assert data["memory"]["usage"]["limit"] == 100 * MIB
    assert data["cpu"]["usage"]["total"] > 0
    assert data["pids"]["limit"] == 20
    assert data["pids"]["current"] >= 1


def test_an_update_brings_a_controller_that_was_not_asked_for(group: Group) -> None:
    resources.create(group, Resources())
    shell = start(group, "sleep 600")
    resources.update(group, of({"cpu": {"cpus": "0"}}))
    assert os.sched_getaffinity(shell.pid) == {0}


def test_frozen_signalled_and_killed(group: Group) -> None:
    resources.create(group, Resources())
    shell = start(group, "trap 'exit 3' TERM; sleep 600 & wait")
    deadline = time.monotonic() + 60
    while len(group.processes()) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    group.freeze()
    assert group.is_frozen()
    group.signal(signal.SIGTERM)
    time.sleep(0.2)
    assert shell.poll() is None
    group.thaw()
    assert shell.wait(120) == 3
    group.freeze()
    group.kill()
    assert group.processes() == set()
