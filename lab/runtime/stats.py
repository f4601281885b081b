"""What a group has used, in the form of ``runc events --stats``, from cgroup v1 and v2.

Times in nanoseconds, memory in bytes. What this host doesn't account for is left out; "no limit" is the largest
number of 64 bits on v2 and what v1 says itself, 0 for processes, all as runc has it.
Sources: runc's types/events.go for the names, cgroup-v1/*.rst and cgroup-v2.rst for the files.
"""

from __future__ import annotations

import os

from lab.host import cgroupfs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from lab.host.group import Group

    Section = dict[str, object]

UNLIMITED = (1 << 64) - 1
NANOSECONDS = 1_000_000_000
MICROSECOND = 1_000  # nanoseconds

CPUSET = (
    "cpu_exclusive", "mem_hardwall", "mem_exclusive", "memory_migrate", "memory_spread_page", "memory_spread_slab",
    "memory_pressure", "sched_load_balance", "sched_relax_domain_level",
)  # fmt: skip


def event(group: Group, identity: str) -> Section:
    """One event of type "stats", as runc prints it. Raises GroupGone."""
    return {"type": "stats", "id": identity, "data": stats(group)}


def stats(group: Group) -> Section:
    """What it has used since it was made. Raises GroupGone."""
    on_v2 = group.host.on_v2
    sections: dict[str, Callable[[Group], Section]] = {
        "cpu": _v2_cpu if on_v2("cpu") else _v1_cpu,
        "cpuset": _v1_cpuset,
        "memory": _v2_memory if on_v2("memory") else _v1_memory,
        "pids": _pids,
        "blkio": _v2_io if on_v2("io") else _v1_block_io,
        "hugetlb": _huge_pages,
    }
    found: Section = {name: section(group) for name, section in sections.items()}
    return found | {"intel_rdt": {}, "network_interfaces": None}


# CPU


def _v1_cpu(group: Group) -> Section:
    usage: Section = {"total": 0, "kernel": 0, "user": 0}
    total = group.look("cpuacct", "cpuacct.usage")
    if total is not None:
        ticks = cgroupfs.pairs(group.read("cpuacct", "cpuacct.stat"))
        tick = NANOSECONDS // os.sysconf("SC_CLK_TCK")
        lines = [line.split() for line in group.read("cpuacct", "cpuacct.usage_all").splitlines()[1:]]
        usage = {
            "total": int(total),
            "percpu": [int(word) for word in group.read("cpuacct", "cpuacct.usage_percpu").split()],
            "percpu_kernel": [int(system) for _, _, system in lines],
            "percpu_user": [int(user) for _, user, _ in lines],
            "kernel": ticks["system"] * tick,
            "user": ticks["user"] * tick,
        }
    throttled = cgroupfs.pairs(group.look("cpu", "cpu.stat") or "")
    return {"usage": usage, "throttling": _throttling(throttled, throttled.get("throttled_time", 0))}


def _v2_cpu(group: Group) -> Section:
    stat = cgroupfs.pairs(group.read("cpu", "cpu.stat"))
    usage = {"total": "usage_usec", "kernel": "system_usec", "user": "user_usec"}
    return {
        "usage": {name: stat[source] * MICROSECOND for name, source in usage.items()},
        "throttling": _throttling(stat, stat.get("throttled_usec", 0) * MICROSECOND),
    }


def _throttling(stat: dict[str, int], time: int) -> Section:
    return {
        "periods": stat.get("nr_periods", 0),
        "throttledPeriods": stat.get("nr_throttled", 0),
        "throttledTime": time,
    }


def _v1_cpuset(group: Group) -> Section:
    if group.host.on_v2("cpuset") or group.look("cpuset", "cpuset.cpus") is None:
        return {}
    found: Section = {name: _numbers(group.read("cpuset", f"cpuset.{name}")) for name in ("cpus", "mems")}
    return found | {name: int(group.read("cpuset", f"cpuset.{name}")) for name in CPUSET}


def _numbers(text: str) -> list[int]:
    """cpuset(7), "List format"."""
    found: list[int] = []
    for part in text.split(",") if text else []:
        first, _, last = part.partition("-")
        found += range(int(first), int(last or first) + 1)
    return found


# Memory


def _v1_memory(group: Group) -> Section:
    stat = group.look("memory", "memory.stat")
    if stat is None:
        return {}
    raw = cgroupfs.pairs(stat)
    found: Section = {"cache": raw["cache"]}
    for name, prefix in (("usage", "memory"), ("swap", "memory.memsw"), ("kernel", "memory.kmem")):
        found[name] = _v1_counter(group, prefix)
    return found | {"kernelTCP": _v1_counter(group, "memory.kmem.tcp"), "raw": raw}


def _v1_counter(group: Group, prefix: str) -> Section:
    files = {"limit": "limit_in_bytes", "usage": "usage_in_bytes", "max": "max_usage_in_bytes", "failcnt": "failcnt"}
    held = {name: group.look("memory", f"{prefix}.{file}") for name, file in files.items()}
    return {name: int(text) for name, text in held.items() if text is not None}


def _v2_memory(group: Group) -> Section:
    if group.look("memory", "memory.current") is None:
        return {}
    raw = cgroupfs.pairs(group.read("memory", "memory.stat"))
    events = cgroupfs.pairs(group.read("memory", "memory.events"))
    usage = _v2_counter(group, "memory") | {"failcnt": events["max"]}
    found: Section = {"cache": raw["file"], "usage": usage, "raw": raw}
    if "kernel" in raw:
        found["kernel"] = {"usage": raw["kernel"]}
    if group.look("memory", "memory.swap.current") is not None:
        swap = _v2_counter(group, "memory.swap")
        # as on v1, where swap is counted together with memory
        limits = (swap["limit"], usage["limit"])
        found["swap"] = {
            "usage": swap["usage"] + usage["usage"],
            "limit": UNLIMITED if UNLIMITED in limits else sum(limits),
            "failcnt": cgroupfs.pairs(group.read("memory", "memory.swap.events"))["fail"],
        }
    return found


def _v2_counter(group: Group, prefix: str) -> dict[str, int]:
    limit = group.read("memory", f"{prefix}.max")
    found = {
        "limit": UNLIMITED if limit == "max" else int(limit),
        "usage": int(group.read("memory", f"{prefix}.current")),
    }
    peak = group.look("memory", f"{prefix}.peak")
    if peak is not None:
        found["max"] = int(peak)
    return found


# Processes, block devices, huge pages


def _pids(group: Group) -> Section:
    current = group.look("pids", "pids.current")
    if current is None:
        return {}
    limit = group.read("pids", "pids.max")
    return {"current": int(current), "limit": 0 if limit == "max" else int(limit)}


def _v1_block_io(group: Group) -> Section:
    """BFQ's account where that scheduler is in use, else what was throttled or could have been."""
    for prefix in ("blkio.bfq", "blkio.throttle"):
        found: Section = {}
        for name, file in (("ioServiceBytesRecursive", "io_service_bytes"), ("ioServicedRecursive", "io_serviced")):
            text = group.look("blkio", f"{prefix}.{file}_recursive")
            if text is not None:
                found[name] = list(_v1_operations(text))
        if any(found.values()):
            return found
    return {}


def _v1_operations(text: str) -> Iterator[Section]:
    """Lines like "8:0 Read 4096", and a total without a device."""
    for line in text.splitlines():
        words = line.split()
        if ":" in words[0]:
            major, minor = words[0].split(":")
            yield {"major": int(major), "minor": int(minor), "op": words[1], "value": int(words[2])}


def _v2_io(group: Group) -> Section:
    stat = group.look("io", "io.stat")
    if stat is None:
        return {}
    sizes: list[Section] = []
    counts: list[Section] = []
    for line in stat.splitlines():
        device, *words = line.split()
        major, minor = device.split(":")
        for word in words:
            name, _, value = word.partition("=")
            place = {
                "rbytes": sizes,
                "wbytes": sizes,
                "dbytes": sizes,
                "rios": counts,
                "wios": counts,
                "dios": counts,
            }
            if name in place:
                operation = {"r": "Read", "w": "Write", "d": "Discard"}[name[0]]
                entry: Section = {"major": int(major), "minor": int(minor), "op": operation, "value": int(value)}
                place[name].append(entry)
    return {"ioServiceBytesRecursive": sizes, "ioServicedRecursive": counts} if sizes or counts else {}


def _huge_pages(group: Group) -> Section:
    v2 = group.host.on_v2("hugetlb")
    directory = os.path.dirname(group.file("hugetlb", "")) if group.host.mount_of("hugetlb") else ""
    if not os.path.isdir(directory):
        return {}
    suffix = ".current" if v2 else ".usage_in_bytes"
    names = [name.removeprefix("hugetlb.") for name in os.listdir(directory) if name.startswith("hugetlb.")]
    sizes = sorted(name.removesuffix(suffix) for name in names if name.endswith(suffix) and ".rsvd." not in name)
    return {size: _huge_page(group, size, v2=v2) for size in sizes}


def _huge_page(group: Group, size: str, *, v2: bool) -> Section:
    usage = int(group.read("hugetlb", f"hugetlb.{size}.{'current' if v2 else 'usage_in_bytes'}"))
    if v2:
        return {"usage": usage, "failcnt": cgroupfs.pairs(group.read("hugetlb", f"hugetlb.{size}.events"))["max"]}
    most = int(group.read("hugetlb", f"hugetlb.{size}.max_usage_in_bytes"))
    return {"usage": usage, "max": most, "failcnt": int(group.read("hugetlb", f"hugetlb.{size}.failcnt"))}
