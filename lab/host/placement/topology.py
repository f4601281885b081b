"""The CPUs of a host: which of them share a core and a node of memory, which are faster, which lab may use.

Source: the kernel's Documentation/admin-guide/cputopology.rst and Documentation/ABI/testing/sysfs-devices-system-cpu;
cpuset(7), "List format".
"""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from lab.host.cgroup.mounted import Mounted
from lab.host.cpulist import numbers

SYSTEM = "sys/devices/system"
FULL_CAPACITY = 1024  # the fastest CPU's (Documentation/scheduler/sched-capacity.rst)
EFFICIENT_CAPACITY = 512  # of Intel's efficient cores, whose kernel says no more than that they are some: an order


@dataclass(frozen=True, slots=True, kw_only=True)
class Cpu:
    """One logical CPU. ``core`` is the lowest number of those that share its core (SMT), ``node`` the node of memory
    it is next to. A higher ``capacity`` is a faster core.
    """

    number: int
    core: int
    node: int = 0
    capacity: int = FULL_CAPACITY


@dataclass(frozen=True, slots=True, kw_only=True)
class Topology:
    """The CPUs that are online, those of them that lab may use, and those that the scheduler leaves alone."""

    cpus: tuple[Cpu, ...]
    allowed: frozenset[int]
    isolated: frozenset[int] = frozenset()


def read(root: Path = Path("/"), allowed: Collection[int] | None = None) -> Topology:
    """That of the host whose /sys is below ``root``. ``allowed`` is by default what this process and a group of lab's
    may use: its affinity, within the root of the cpusets.
    """
    folder = root / SYSTEM / "cpu"
    online = numbers(_text(folder / "online")) or sorted(os.sched_getaffinity(0))
    nodes = {
        cpu: int(node.name.removeprefix("node"))
        for node in sorted((root / SYSTEM / "node").glob("node[0-9]*"))
        for cpu in numbers(_text(node / "cpulist"))
    }
    efficient = set(numbers(_text(root / "sys/devices/cpu_atom/cpus")))
    return Topology(
        cpus=tuple(
            Cpu(
                number=cpu,
                core=min(_siblings(folder / f"cpu{cpu}/topology"), default=cpu),
                node=nodes.get(cpu, 0),
                capacity=int(
                    _text(folder / f"cpu{cpu}/cpu_capacity")
                    or (EFFICIENT_CAPACITY if cpu in efficient else FULL_CAPACITY)
                ),
            )
            for cpu in online
        ),
        allowed=frozenset(usable() if allowed is None else allowed),
        isolated=frozenset(numbers(_text(folder / "isolated"))),
    )


def usable() -> set[int]:
    """The CPUs that this process may run on and that a group below the root of the cpusets may be given."""
    mine = os.sched_getaffinity(0)
    place = Mounted.detect().mount_of("cpuset")
    for name in ("cpuset.cpus.effective", "cpuset.effective_cpus", "cpuset.cpus"):
        if place and (granted := numbers(_text(Path(place) / name))):
            return mine & set(granted)
    return mine


def _siblings(folder: Path) -> list[int]:
    """Those on one core; the first file is the name of kernels before 5.3, which later ones keep."""
    return numbers(_text(folder / "thread_siblings_list") or _text(folder / "core_cpus_list"))


def _text(path: Path) -> str:
    try:
        return path.read_text("ascii", "replace").strip()
    except OSError:
        return ""
