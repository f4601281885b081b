"""What detached instances use, containers and machines alike: read from cgroups and /proc, without a supervisor.

A machine's figures are its VMM's, the guest included: memory is what the guest has touched and QEMU itself, its
processes are QEMU's threads.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from lab.errors import GroupGone
from lab.host.cgroup import accounting
from lab.host.cgroup.control import ControlGroup
from lab.host.cgroup.delegation import group_of
from lab.supervisor.record import InstanceRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """One instance at one moment. None where this host can't tell.

    ``memory_bytes`` leaves out page cache that could be dropped, as `docker stats` does. ``read_bytes`` and
    ``written_bytes`` are what its living processes caused on block devices (proc_pid_io(5)).
    """

    record: InstanceRecord
    at: float  # CLOCK_MONOTONIC
    cpu_seconds: float | None
    memory_bytes: int | None
    memory_limit_bytes: int | None
    pids: int | None
    read_bytes: int
    written_bytes: int

    def cpu_percent(self, before: Usage) -> float | None:
        """Of one CPU, since then."""
        if self.cpu_seconds is None or before.cpu_seconds is None or self.at <= before.at:
            return None
        return 100 * (self.cpu_seconds - before.cpu_seconds) / (self.at - before.at)


def usage(record: InstanceRecord) -> Usage | None:
    """What it uses now; None when it has just ended."""
    cgroup = ControlGroup.open(group_of(record.session, record.name))
    cgroup.group.follow(record.first.number)
    try:
        memory, cpu = accounting.memory(cgroup.group), accounting.cpu(cgroup.group)
        pids = accounting.pids(cgroup.group)
    except GroupGone:
        return None
    counts = [_io(pid) for pid in cgroup.processes()]
    return Usage(
        record=record,
        at=time.monotonic(),
        cpu_seconds=cpu.total_seconds if cpu else None,
        memory_bytes=memory.working_set_bytes if memory else None,
        memory_limit_bytes=record.limits.memory_bytes,
        pids=pids,
        read_bytes=sum(read for read, _ in counts),
        written_bytes=sum(written for _, written in counts),
    )


def usages(records: Sequence[InstanceRecord]) -> dict[str, Usage]:
    """By id, of those that run."""
    found = ((record.id, usage(record)) for record in records if record.runs)
    return {identity: one for identity, one in found if one is not None}


def _io(pid: int) -> tuple[int, int]:
    with suppress(OSError, KeyError, ValueError):
        pairs = dict(line.split(": ") for line in Path(f"/proc/{pid}/io").read_text().splitlines())
        return int(pairs["read_bytes"]), int(pairs["write_bytes"])
    return 0, 0
