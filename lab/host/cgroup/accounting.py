"""What a control group has used, and what it is held to: the one reader of cgroup v1 and v2 (cgroups(7)).

One rule for what is absent: a thing that this host does not account for is None, or left out of a mapping, and a
group that is gone is GroupGone. Bytes, nanoseconds and counts, as the kernel has them. Whoever needs other units or
other names takes them from here: `lab.host.cgroup.control` for instances, `lab.runtime.cgroup.stats` for ``lab-oci
events``.

Sources: Documentation/admin-guide/cgroup-v1/, cgroup-v2.rst and psi.rst in the kernel's tree.
Imports little: `lab-oci` needs it.
"""

from __future__ import annotations

import os

from lab.host.cgroup import cgroupfs
from lab.host.cgroup.cgroupfs import V1_UNLIMITED
from lab.host.cpulist import numbers
from lab.host.identity import ownspace
from lab.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from lab.host.cgroup.group import Group
    from lab.host.cgroup.mounted import Mounted

NANOSECONDS = 1_000_000_000
MICROSECOND = 1_000  # nanoseconds
LARGEST_FOLIO_BYTES = 2 << 20


def is_offered(host: Mounted) -> bool:
    """Whether groups are charged for CPU time and memory."""
    return bool(host.mount_of("memory")) and bool("cpuacct" in host.v1 or host.is_v2)


# CPU


class CpuUsage(Record):
    """CPU time charged to a group since it was made; throttling is 0 without a quota."""

    total_nanoseconds: int
    user_nanoseconds: int
    system_nanoseconds: int
    throttled_nanoseconds: int = 0
    throttled_periods: int = 0
    periods: int = 0

    @property
    def total_seconds(self) -> float:
        return self.total_nanoseconds / NANOSECONDS

    @property
    def user_seconds(self) -> float:
        return self.user_nanoseconds / NANOSECONDS

    @property
    def system_seconds(self) -> float:
        return self.system_nanoseconds / NANOSECONDS

    @property
    def throttled_seconds(self) -> float:
        return self.throttled_nanoseconds / NANOSECONDS


def cpu(group: Group) -> CpuUsage | None:
    """Of processes that ended, too; where an ordinary user's group accounts for nothing, what
    `lab.host.cgroup.spent` finds.
    """
    found = _cpu_charged(group)
    if found is not None or not ownspace.here():
        return found
    from lab.host.cgroup import spent

    total, user, system = spent.cpu_nanoseconds(group.living())
    return CpuUsage(total_nanoseconds=total, user_nanoseconds=user, system_nanoseconds=system)


def _cpu_charged(group: Group) -> CpuUsage | None:
    stat = _counts(group, "cpu", "cpu.stat")
    if "cpuacct" not in group.host.v1:
        if stat is None or "usage_usec" not in stat:
            return None
        return CpuUsage(
            total_nanoseconds=stat["usage_usec"] * MICROSECOND,
            user_nanoseconds=stat["user_usec"] * MICROSECOND,
            system_nanoseconds=stat["system_usec"] * MICROSECOND,
            throttled_nanoseconds=stat.get("throttled_usec", 0) * MICROSECOND,
            throttled_periods=stat.get("nr_throttled", 0),
            periods=stat.get("nr_periods", 0),
        )
    names = ("cpuacct.usage", "cpuacct.usage_user", "cpuacct.usage_sys")
    total, user, system = (_number(group, "cpuacct", name) for name in names)
    if total is None or user is None or system is None:
        return None
    stat = stat or {}
    return CpuUsage(
        total_nanoseconds=total,
        user_nanoseconds=user,
        system_nanoseconds=system,
        throttled_nanoseconds=stat.get("throttled_time", 0),
        throttled_periods=stat.get("nr_throttled", 0),
        periods=stat.get("nr_periods", 0),
    )


def cpu_by_processor(group: Group) -> list[tuple[int, int]] | None:
    """Nanoseconds as user and as system on each processor: v1 alone tells."""
    text = group.look("cpuacct", "cpuacct.usage_all") if "cpuacct" in group.host.v1 else None
    if text is None:
        return None
    lines = (line.split() for line in text.splitlines()[1:])
    return [(int(user), int(system)) for _, user, system in lines]


def cpus_held(group: Group) -> float | None:
    """The quota, in processors."""
    quota, period = cpu_quota(group) or (None, 0)
    return None if quota is None else quota / period


def cpu_quota(group: Group) -> tuple[int | None, int] | None:
    """The quota, None if there is none, and its period, in microseconds."""
    if group.host.on_v2("cpu"):
        words = (group.look("cpu", "cpu.max") or "").split()
    else:
        words = [group.look("cpu", f"cpu.cfs_{name}_us") or "" for name in ("quota", "period")]
    if len(words) != 2 or not words[1]:
        return None
    return (None if words[0] in ("max", "-1", "") else int(words[0])), int(words[1])


# Memory


class MemoryUsage(Record):
    """What the kernel charges to a group, in bytes."""

    usage_bytes: int
    anon_bytes: int
    file_bytes: int  # page cache, tmpfs and shared memory included
    shared_bytes: int  # the part of those that no disk holds: tmpfs, shared memory, memfd_create(2)
    kernel_bytes: int | None
    inactive_file_bytes: int
    peak_bytes: int | None
    limit_bytes: int | None

    @property
    def working_set_bytes(self) -> int:
        """Usage without the page cache that could be dropped at once, as kubelet and cAdvisor define it."""
        return max(0, self.usage_bytes - self.inactive_file_bytes)


class MemoryCounter(Record):
    """One of the things whose bytes are counted and may be limited."""

    usage_bytes: int
    limit_bytes: int | None
    peak_bytes: int | None
    failures: int | None  # how often the limit was met


V1_COUNTERS = {"memory": "memory", "swap": "memory.memsw", "kernel": "memory.kmem", "kernelTCP": "memory.kmem.tcp"}
V2_COUNTERS = {"memory": "memory", "swap": "memory.swap"}


def memory(group: Group) -> MemoryUsage | None:
    stat, v2 = memory_stat(group), group.host.on_v2("memory")
    usage = _number(group, "memory", "memory.current" if v2 else "memory.usage_in_bytes")
    if stat is None or usage is None:
        return None
    return MemoryUsage(
        usage_bytes=usage,
        anon_bytes=stat["anon" if v2 else "total_rss"],
        file_bytes=stat["file" if v2 else "total_cache"],
        shared_bytes=stat["shmem" if v2 else "total_shmem"],
        kernel_bytes=stat.get("kernel") if v2 else _number(group, "memory", "memory.kmem.usage_in_bytes"),
        inactive_file_bytes=stat["inactive_file" if v2 else "total_inactive_file"],
        peak_bytes=_number(group, "memory", "memory.peak" if v2 else "memory.max_usage_in_bytes"),
        limit_bytes=memory_held(group),
    )


def memory_stat(group: Group) -> dict[str, int] | None:
    """memory.stat, whose words each version has for itself."""
    return _counts(group, "memory", "memory.stat")


def memory_counter(group: Group, name: str) -> MemoryCounter | None:
    """``name`` is memory, or swap, kernel or kernelTCP. v1 counts swap together with memory, v2 by itself."""
    v2 = group.host.on_v2("memory")
    prefix = (V2_COUNTERS if v2 else V1_COUNTERS).get(name)
    if prefix is None:
        return None
    usage = _number(group, "memory", f"{prefix}.{'current' if v2 else 'usage_in_bytes'}")
    if usage is None:
        return None
    if v2:
        events = _counts(group, "memory", f"{prefix}.events") or {}
        failures = events.get("fail" if name == "swap" else "max")
    else:
        failures = _number(group, "memory", f"{prefix}.failcnt")
    return MemoryCounter(
        usage_bytes=usage,
        limit_bytes=_limit(group, "memory", f"{prefix}.{'max' if v2 else 'limit_in_bytes'}"),
        peak_bytes=_number(group, "memory", f"{prefix}.{'peak' if v2 else 'max_usage_in_bytes'}"),
        failures=failures,
    )


def memory_held(group: Group) -> int | None:
    """The limit, in bytes."""
    return _limit(group, "memory", "memory.max" if group.host.on_v2("memory") else "memory.limit_in_bytes")


def oom_kills(group: Group) -> int | None:
    """How many of its processes were killed for want of memory."""
    file = "memory.events" if group.host.on_v2("memory") else "memory.oom_control"
    return (_counts(group, "memory", file) or {}).get("oom_kill")


class PageFaults(Record):
    """How often a page was missing: ``minor``, and it was made or found in memory; ``major``, and it was read from a
    disk.
    """

    minor: int
    major: int

    @classmethod
    def of(cls, every: int, major: int) -> PageFaults:
        """Out of the kernel's two counts, of which the first has the second in it."""
        return cls(minor=max(0, every - major), major=major)


def faults(group: Group) -> PageFaults | None:
    """Of processes that ended, too. The kernel adds the processors' counts up when they come to some 64 each: the
    last ones may be missing.
    """
    stat, prefix = memory_stat(group), "" if group.host.on_v2("memory") else "total_"
    if stat is None or f"{prefix}pgfault" not in stat:
        return None
    return PageFaults.of(stat[f"{prefix}pgfault"], stat[f"{prefix}pgmajfault"])


# Processes


def pids(group: Group) -> int | None:
    """How many tasks (threads count) the group holds."""
    return _number(group, "pids", "pids.current")


def pids_held(group: Group) -> int | None:
    """The limit."""
    return _limit(group, "pids", "pids.max")


# Whether limits were met, and what was waited for


def limit_hits(group: Group) -> dict[str, int]:
    """How often the group met a limit so far: ``memory`` (charges that failed at first), ``oom`` (processes
    killed for want of memory), ``cpu`` (periods throttled), ``pids`` (forks refused). Left out where the kernel
    does not count. On v1 ``memory`` may be no more than 1 since the last `ControlGroup.forget_peak`.
    """
    found = {
        "memory": _memory_hits(group),
        "oom": oom_kills(group),
        "cpu": (_counts(group, "cpu", "cpu.stat") or {}).get("nr_throttled"),
        "pids": (_counts(group, "pids", "pids.events") or {}).get("max"),
    }
    return {limit: count for limit, count in found.items() if count is not None}


def _memory_hits(group: Group) -> int | None:
    if group.host.on_v2("memory"):
        return (_counts(group, "memory", "memory.events") or {}).get("max")
    counter = memory_counter(group, "memory")
    if counter is None:
        return None
    # Some kernels (6.18) leave memory.failcnt at 0 whatever happens; the peak tells as much as one hit. It
    # stays below the limit by the size of a folio that did not fit, 2 MiB maybe.
    limit, peak = counter.limit_bytes, counter.peak_bytes or 0
    full = limit is not None and peak >= limit - LARGEST_FOLIO_BYTES
    return max(int(full), counter.failures or 0)


# Block devices, huge pages, processors and nodes


class Transfer(Record):
    """What one kind of operation on one device came to, in bytes or in operations."""

    device: tuple[int, int]  # major, minor
    operation: str  # Read, Write, Discard; on v1 Sync, Async and Total as well
    value: int


V2_TRANSFERS = {
    "rbytes": (0, "Read"), "wbytes": (0, "Write"), "dbytes": (0, "Discard"),
    "rios": (1, "Read"), "wios": (1, "Write"), "dios": (1, "Discard"),
}  # fmt: skip
V1_TRANSFERS = ("blkio.bfq", "blkio.throttle")


def transfers(group: Group) -> tuple[list[Transfer], list[Transfer]] | None:
    """Bytes, and operations. On v1: BFQ's account where that scheduler is in use, else what was throttled or could
    have been.
    """
    if group.host.on_v2("io"):
        text = group.look("io", "io.stat")
        return None if text is None else _v2_transfers(text)
    known = None
    for prefix in V1_TRANSFERS:
        texts = [group.look("blkio", f"{prefix}.{name}_recursive") for name in ("io_service_bytes", "io_serviced")]
        if None in texts:
            continue
        sizes, counts = (list(_v1_transfers(text or "")) for text in texts)
        known = sizes, counts
        if sizes or counts:
            break
    return known


def _v2_transfers(text: str) -> tuple[list[Transfer], list[Transfer]]:
    """Lines like "8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0"."""
    found: tuple[list[Transfer], list[Transfer]] = [], []
    for line in text.splitlines():
        device, *words = line.split()
        for word in words:
            name, _, value = word.partition("=")
            if name in V2_TRANSFERS:
                unit, operation = V2_TRANSFERS[name]
                found[unit].append(Transfer(device=_device(device), operation=operation, value=int(value)))
    return found


def _v1_transfers(text: str) -> Iterator[Transfer]:
    """Lines like "8:0 Read 4096", and a total without a device."""
    for line in text.splitlines():
        words = line.split()
        if ":" in words[0]:
            yield Transfer(device=_device(words[0]), operation=words[1], value=int(words[2]))


def _device(text: str) -> tuple[int, int]:
    major, _, minor = text.partition(":")
    return int(major), int(minor)


class HugePages(Record):
    """Huge pages of one size."""

    usage_bytes: int
    peak_bytes: int | None
    failures: int | None


def huge_pages(group: Group) -> dict[str, HugePages] | None:
    """By size, as the files spell it: 2MB, 1GB."""
    v2 = group.host.on_v2("hugetlb")
    directory = os.path.dirname(group.file("hugetlb", "")) if group.host.mount_of("hugetlb") else ""
    if not os.path.isdir(directory):
        return None
    suffix = ".current" if v2 else ".usage_in_bytes"
    names = [name.removeprefix("hugetlb.") for name in os.listdir(directory) if name.startswith("hugetlb.")]
    sizes = sorted(name.removesuffix(suffix) for name in names if name.endswith(suffix) and ".rsvd." not in name)
    found = {}
    for size in sizes:
        name = f"hugetlb.{size}"
        events = (_counts(group, "hugetlb", f"{name}.events") or {}) if v2 else {}
        found[size] = HugePages(
            usage_bytes=_number(group, "hugetlb", f"{name}{suffix}") or 0,
            peak_bytes=None if v2 else _number(group, "hugetlb", f"{name}.max_usage_in_bytes"),
            failures=events.get("max") if v2 else _number(group, "hugetlb", f"{name}.failcnt"),
        )
    return found


CPUSET_FLAGS = (
    "cpu_exclusive", "mem_hardwall", "mem_exclusive", "memory_migrate", "memory_spread_page", "memory_spread_slab",
    "memory_pressure", "sched_load_balance", "sched_relax_domain_level",
)  # fmt: skip


def cpuset(group: Group) -> dict[str, list[int] | int] | None:
    """Processors and nodes as lists of their numbers, and v1's flags; v1 alone."""
    if group.host.on_v2("cpuset") or group.look("cpuset", "cpuset.cpus") is None:
        return None
    found: dict[str, list[int] | int] = {}
    for name in ("cpus", "mems"):
        found[name] = numbers(group.look("cpuset", f"cpuset.{name}") or "")
    flags = {name: _number(group, "cpuset", f"cpuset.{name}") for name in CPUSET_FLAGS}
    return found | {name: value for name, value in flags.items() if value is not None}


# Files


def _number(group: Group, controller: str, file: str) -> int | None:
    text = group.look(controller, file)
    return None if text is None else int(text)


def _limit(group: Group, controller: str, file: str) -> int | None:
    """v2 says max; v1 a number of bytes that nobody has."""
    text = group.look(controller, file)
    return None if text in (None, "max") or int(text) >= V1_UNLIMITED else int(text)


def _counts(group: Group, controller: str, file: str) -> dict[str, int] | None:
    """The file's lines of a word and a number."""
    text = group.look(controller, file)
    return None if text is None else cgroupfs.pairs(text)
