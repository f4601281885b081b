"""Every probe tells yes where yes is true and no where no is true, and says neither when a control does not."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from lab.errors import CommandError
from lab.isolation.base import BOOT_ID, Boundary, Context, HostValue, Place, Privilege, Probe, Reply, Signal
from lab.isolation.battery import Ask, Places, ask
from lab.isolation.probes.limits import MIB
from lab.isolation.registry import probes
from lab.model import Completed, Limits
from lab.results.observation import Observation
from lab.results.record import Status

CONTEXT = Context(
    victim_pid=4711, victim_token="word", disk=(8, 0), victim_port=99, victim_memory=3, home="/home",
    group="lab/session/one", limits=Limits(memory_bytes=64 * MIB, cpus=1.0, pids=50),
    signal=Signal(path="/file", real="/layer/file", pages="01" * 32),
)  # fmt: skip
EVERY = pytest.mark.parametrize("probe", probes(), ids=lambda probe: probe.id)
Answers = Callable[[Probe, str], Reply]

TEXTS = {
    "/proc/uptime": "100000.0 1.0",
    "/proc/modules": "ext4 1 2 - Live 0x0\nend\n",
    "/proc/loadavg": "1.0 2.0 3.0 1/500 77",
    "/proc/kallsyms": "0000000000000000 A offset\nffffffff81000000 T _text\nend\n",
    "/proc/self/uid_map": "0 0 4294967295",
    "/proc/self/mountinfo": "1 2 8:1 / / rw - ext4 /dev/sda1 rw\n",
    "/proc/self/cgroup": "4:memory:/lab/session/one-control\n",
    "/proc/self/status": "CapEff:\t000001ffffffffff\nSeccomp:\t0\nNoNewPrivs:\t0\n",
    "/proc/self/net/route": "Iface\neth0 00000000 0100000A 0003 0 0 0 00000000 0 0 0\n",
    "/proc/stat": "cpu 1\nbtime 1700000000\n",
    "/proc/cpuinfo": "model name\t: A processor\nflags\t: fpu\n",
    f"/proc/{CONTEXT.victim_pid}/cmdline": CONTEXT.victim_token,
}
CLOSED_TEXTS = {
    "/proc/self/uid_map": "0 0 1",
    "/proc/self/cgroup": "4:memory:/\n",
    "/proc/self/status": "CapEff:\t0000000000000000\nSeccomp:\t2\nNoNewPrivs:\t1\n",
    "/proc/self/net/route": "Iface\n",
    "/proc/self/mountinfo": "1 2 0:40 / / rw - tmpfs lab rw\n",
}


def outcome(name: str = "", **more: Any) -> Reply:
    return {"ret": -1 if name else 0, "errno": 1 if name else 0, "name": name, **more}


def open_place(probe: Probe, line: str) -> Reply:
    """What the host says to root."""
    verb, *words = line.split()
    if line == BOOT_ID:
        return outcome(text="host")
    match verb:
        case "read":
            return outcome(text=TEXTS.get(words[0], "what the host's kernel says"))
        case "namespaces":
            return dict.fromkeys(("cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"), 1)
        case "stat":
            return outcome(device="8:1", inode=2)
        case "list":
            return outcome(names=["one", "two"])
        case "greet" | "shared-memory":
            return outcome(text=CONTEXT.victim_token)
        case "processes":
            return outcome(found=[CONTEXT.victim_pid], count=90)
        case "clock":
            return outcome(seconds=1e6, resolution=1e-9)
        case "resident":
            assert CONTEXT.signal
            return outcome(resident=CONTEXT.signal.pages)
        case "space":
            return outcome(bytes=1 << 40, free=1 << 39)
        case "files" | "fork":
            return outcome(made=int(words[0]))
        case "allocate":
            return {"touched": int(words[0]), "fate": "done"}
        case "spin":
            return {"cpu_seconds": 2.0 * float(words[0]), "wall_seconds": float(words[0])}
        case "call" if "process_vm_readv" in line:
            return outcome("EFAULT")
        case _:
            return outcome(min(probe.allowed) if isinstance(probe, Privilege) else "")


def closed_place(probe: Probe, line: str) -> Reply:
    """What a place says where nothing is allowed."""
    verb, *words = line.split()
    match verb:
        case "read" if words[0] in CLOSED_TEXTS:
            return outcome(text=CLOSED_TEXTS[words[0]])
        case "namespaces":
            return dict.fromkeys(("cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"), 7)
        case "stat" if "self/exe" in line:
            return outcome(device="0:40", inode=3)
        case "resident":
            return outcome("ENOENT", resident="")
        case "space":
            return outcome(bytes=16 << 20, free=1 << 20)
        case "files":
            return outcome("EMFILE", made=0)
        case "fork":
            return outcome("EAGAIN", made=0)
        case "allocate":
            return {"touched": 8 * MIB, "fate": "killed"}
        case "spin":
            return {"cpu_seconds": 0.1 * float(words[0]), "wall_seconds": float(words[0])}
        case _:
            return outcome(
                "EPERM", text="", names=[], device="0:0", inode=0, found=[], count=3, seconds=0.0, resolution=0.0
            )


def place(probe: Probe, answers: Answers) -> Ask:
    def replies(lines: bytes, timeout_seconds: float) -> Completed:
        said = [answers(probe, line) for line in lines.decode().splitlines()]
        return Completed(exit_code=0, stdout=b"".join(json.dumps(each).encode() + b"\n" for each in said), stderr=b"")

    return replies


def crash(lines: bytes, timeout_seconds: float) -> Completed:
    raise CommandError("inside did not finish within 20 s")


def died(lines: bytes, timeout_seconds: float) -> Completed:
    return Completed(exit_code=0, stdout=b'{"died": 137}\n' * len(lines.splitlines()), stderr=b"")


def asked(
    probe: Probe,
    inside: Ask | Answers,
    *,
    positive: Ask | Answers = open_place,
    negative: Ask | Answers = closed_place,
) -> Observation:
    def at(what: Any) -> Ask:
        return place(probe, what) if what in (open_place, closed_place) else what

    controls = {probe.positive: at(positive), probe.negative: at(negative)}
    unused = at(crash)
    places = Places(
        inside=at(inside), host=controls.get(Place.HOST, unused), closed=controls.get(Place.CLOSED, unused),
        limited=controls.get(Place.LIMITED, unused),
    )  # fmt: skip
    return ask(probe, places, CONTEXT, Boundary.BARE)


@EVERY
def test_yes_where_yes_is_true(probe: Probe) -> None:
    seen = asked(probe, open_place)
    assert (seen.status, seen.detail["reach"]) == (Status.OK, "open"), seen.detail["evidence"]


@EVERY
def test_no_where_no_is_true(probe: Probe) -> None:
    seen = asked(probe, closed_place)
    assert seen.status is Status.OK, seen.detail["evidence"]
    assert seen.detail["reach"] in ("closed", "own")


@EVERY
def test_a_no_that_the_host_gets_too_is_inconclusive(probe: Probe) -> None:
    assert asked(probe, closed_place, positive=_nothing_works(probe)).text == "inconclusive"


THROUGH_THE_KERNEL = {"processor-model", "hypervisor-bit"}
"""Here hardware answers, whatever kernel is asked."""


@pytest.mark.parametrize(
    "probe", [each for each in probes() if BOOT_ID in each.lines(CONTEXT) and each.id not in THROUGH_THE_KERNEL],
    ids=lambda probe: probe.id,
)  # fmt: skip
def test_what_another_kernel_says_is_not_the_hosts_however_equal(probe: Probe) -> None:
    """A guest in a virtual machine: the same kernel, the same firmware, the same clocks."""

    def twin(probe: Probe, line: str) -> Reply:
        return outcome(text="guest") if line == BOOT_ID else open_place(probe, line)

    seen = asked(probe, place(probe, twin))
    assert (seen.status, seen.detail["reach"]) != (Status.OK, "open"), seen.detail["evidence"]


def test_every_file_that_is_compared_with_the_hosts_is_asked_whose_it_is() -> None:
    assert [each.id for each in probes() if isinstance(each, HostValue) and BOOT_ID not in each.lines(CONTEXT)] == []


def _nothing_works(probe: Probe) -> Ask | Answers:
    """A host that refuses what the probe asks; to a control of the limits it gives no more than within them."""
    if probe.negative is not Place.LIMITED and probe.id != "open-files-limit":
        return closed_place

    def nothing(probe: Probe, line: str) -> Reply:
        return {**closed_place(probe, line), "touched": 0, "fate": "refused", "made": 0}

    return place(probe, nothing)


@EVERY
def test_a_yes_that_a_closed_place_gets_too_is_inconclusive(probe: Probe) -> None:
    for inside in (open_place, closed_place):
        assert asked(probe, inside, negative=open_place).text == "inconclusive"


@EVERY
@pytest.mark.parametrize("failure", [crash, died])
def test_a_crash_or_a_timeout_anywhere_is_inconclusive(probe: Probe, failure: Ask) -> None:
    seen = [
        asked(probe, failure),
        asked(probe, open_place, positive=failure),
        asked(probe, closed_place, negative=failure),
    ]
    assert {each.text for each in seen} == {"inconclusive"}
    assert {each.status for each in seen} == {Status.FAILED}
