"""What a group has used, in the form of ``runc events --stats``, from cgroup v1 and v2.

`lab.host.cgroup.accounting` reads it; here it gets its names. Times in nanoseconds, memory in bytes. What this host
doesn't account for is left out; "no limit" is the largest number of 64 bits on v2, on v1 the one that the kernel
shows, and 0 for processes, all as runc has it.
Source: runc's types/events.go.
"""

from __future__ import annotations

import os

from lab.host.cgroup import accounting

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from lab.host.cgroup.accounting import MemoryCounter, Transfer
    from lab.host.cgroup.group import Group

    Section = dict[str, object]

UNLIMITED = (1 << 64) - 1


def event(group: Group, identity: str) -> Section:
    """One event of type "stats", as runc prints it. Raises GroupGone."""
    return {"type": "stats", "id": identity, "data": stats(group)}


def stats(group: Group) -> Section:
    """What it has used since it was made. Raises GroupGone."""
    sections: dict[str, Callable[[Group], Section]] = {
        "cpu": _cpu,
        "cpuset": _cpuset,
        "memory": _memory,
        "pids": _pids,
        "blkio": _block_io,
        "hugetlb": _huge_pages,
    }
    found: Section = {name: section(group) for name, section in sections.items()}
    return found | {"intel_rdt": {}, "network_interfaces": None}


def _cpu(group: Group) -> Section:
    used = accounting.cpu(group) or accounting.CpuUsage(total_nanoseconds=0, user_nanoseconds=0, system_nanoseconds=0)
    usage: Section = {
        "total": used.total_nanoseconds,
        "kernel": used.system_nanoseconds,
        "user": used.user_nanoseconds,
    }
    processors = accounting.cpu_by_processor(group)
    if processors is not None:
        usage["percpu"] = [user + system for user, system in processors]
        usage["percpu_kernel"] = [system for _, system in processors]
        usage["percpu_user"] = [user for user, _ in processors]
    throttling = {
        "periods": used.periods,
        "throttledPeriods": used.throttled_periods,
        "throttledTime": used.throttled_nanoseconds,
    }
    return {"usage": usage, "throttling": throttling}


def _cpuset(group: Group) -> Section:
    return dict(accounting.cpuset(group) or {})


def _memory(group: Group) -> Section:
    raw, usage = accounting.memory_stat(group), accounting.memory_counter(group, "memory")
    if raw is None or usage is None:
        return {}
    swap = accounting.memory_counter(group, "swap")
    if not group.host.on_v2("memory"):
        others = {name: accounting.memory_counter(group, name) for name in ("kernel", "kernelTCP")}
        counters = {"usage": usage, "swap": swap, **others}
        unlimited = (1 << 63) - os.sysconf("SC_PAGE_SIZE")
        named: Section = {name: _counter(each, unlimited) for name, each in counters.items()}
        return {"cache": raw["cache"], **named, "raw": raw}
    found: Section = {"cache": raw["file"], "usage": _counter(usage), "raw": raw}
    if "kernel" in raw:
        found["kernel"] = {"usage": raw["kernel"]}
    if swap is not None:  # as on v1, where swap is counted together with memory
        both = None
        if swap.limit_bytes is not None and usage.limit_bytes is not None:
            both = swap.limit_bytes + usage.limit_bytes
        found["swap"] = {
            "usage": swap.usage_bytes + usage.usage_bytes,
            "limit": UNLIMITED if both is None else both,
            "failcnt": swap.failures or 0,
        }
    return found


def _counter(counter: MemoryCounter | None, unlimited: int = UNLIMITED) -> Section:
    if counter is None:
        return {}
    found: Section = {
        "limit": unlimited if counter.limit_bytes is None else counter.limit_bytes,
        "usage": counter.usage_bytes,
        "failcnt": counter.failures or 0,
    }
    return found if counter.peak_bytes is None else found | {"max": counter.peak_bytes}


def _pids(group: Group) -> Section:
    current = accounting.pids(group)
    return {} if current is None else {"current": current, "limit": accounting.pids_held(group) or 0}


def _block_io(group: Group) -> Section:
    sizes, counts = accounting.transfers(group) or ([], [])
    if not sizes and not counts:
        return {}
    return {
        "ioServiceBytesRecursive": [_entry(each) for each in sizes],
        "ioServicedRecursive": [_entry(each) for each in counts],
    }


def _entry(one: Transfer) -> Section:
    major, minor = one.device
    return {"major": major, "minor": minor, "op": one.operation, "value": one.value}


def _huge_pages(group: Group) -> Section:
    found: Section = {}
    for size, used in (accounting.huge_pages(group) or {}).items():
        entry = {"usage": used.usage_bytes, "failcnt": used.failures or 0}
        found[size] = entry if used.peak_bytes is None else entry | {"max": used.peak_bytes}
    return found
