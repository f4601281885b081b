"""What it costs in memory: a table, never one number."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from lab.host import ksm
from lab.host.survey import facts
from lab.host.syscalls import system_call
from lab.metrics.base import Metric, Observation, Subject

PROC = Path("/proc")
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
KCMP_VM = 1  # linux/kcmp.h


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessMemory:
    """One host process or the sum of several, in bytes (proc_pid_smaps(5))."""

    pss: int = 0
    rss: int = 0
    mapped: int = 0  # writable mappings, touched or not
    huge: int = 0  # anonymous transparent huge pages
    swap: int = 0
    shared: int = 0  # pages that some other mapping has as well, whole: of the same instance, of another, of the host
    private: int = 0  # pages that no other has; with the former this is RSS

    def __add__(self, other: ProcessMemory) -> ProcessMemory:
        return ProcessMemory(
            pss=self.pss + other.pss,
            rss=self.rss + other.rss,
            mapped=self.mapped + other.mapped,
            huge=self.huge + other.huge,
            swap=self.swap + other.swap,
            shared=self.shared + other.shared,
            private=self.private + other.private,
        )


class Memory(Metric):
    """Bytes, at two moments: after the idle window (state idle) and right after the load (state after-load).

    ``memory.pss``, ``rss``, ``mapped``: summed over all host processes of the instance, a VMM included; of those
    that share one address space one counts. A page shared with processes outside counts in parts only in PSS.
    ``memory.cgroup.*`` and ``working_set``: what the kernel charges to its cgroup; an ordinary user without one is
    not told. ``memory.guest.*``: its own kernel's view, for own kernels only; taken last, since asking inside
    disturbs, and not of a disk of the user's, where nobody can be asked.
    ``memory.host.available_change``: by how much the host's MemAvailable fell since before the launch; noisy, since
    other programs of the host move it too.

    ``memory.ksm.merged``, while KSM runs on the host: its pages that are kept together with equal ones. Its detail
    says how many passes ksmd made since the launch (the second merges a page at the earliest) and in what CPU time.

    ``memory.engine``, where there is one beside it: PSS, summed over its daemons, whatever else they serve;
    ``memory.engine.alone`` the same before anything ran in it.

    Left out: kernel memory that is charged to nobody. PSS counts a merged page in parts, RSS and mapped count it
    whole, a cgroup only if it was the first to have it.
    """

    name = "memory"
    order = 30

    def idle(self, subject: Subject) -> Iterable[Observation]:
        subject.idle_window()
        return self._table(subject, "idle")

    def loaded(self, subject: Subject) -> Iterable[Observation]:
        return self._table(subject, "after-load") if subject.load() is not None else ()

    def _table(self, subject: Subject, state: str) -> Iterator[Observation]:
        host = facts.memory()
        cgroup = subject.instance.cgroup
        charged = cgroup.memory()
        pids = sorted(cgroup.processes())
        summed = read_processes(pids)
        detail = {"processes": len(pids), "anonymous_huge_pages_bytes": summed.huge, "swapped_bytes": summed.swap}
        settings = {"ksm": host["ksm"], "transparent_huge_pages": host["transparent_huge_pages"]}

        def row(name: str, value: int | None, **more: object) -> Observation:
            return Observation(quantity=f"memory.{name}", value=value, unit="bytes", state=state, detail=more)

        yield row("pss", summed.pss, **detail, **settings)
        yield row("rss", summed.rss)
        yield row("mapped", summed.mapped)
        if charged is not None:
            peak = {"peak_bytes": charged.peak_bytes, "limit_bytes": charged.limit_bytes}
            yield row("cgroup.usage", charged.usage_bytes, **peak)
            yield row("cgroup.anon", charged.anon_bytes)
            yield row("cgroup.file", charged.file_bytes)
            yield row("cgroup.shmem", charged.shared_bytes)
            if charged.kernel_bytes is not None:
                yield row("cgroup.kernel", charged.kernel_bytes)
            yield row("working_set", charged.working_set_bytes)
        if (merging := ksm.state()) and merging.running:
            each = [ksm.of_process(pid) for pid in address_spaces(pids)]
            pages = sum(one.merged_pages or 0 for one in each)
            told = any(one.merged_pages is not None for one in each)
            offered = sum(one.offered is True for one in each)
            since = _since(subject.ksm_before, merging)
            yield row("ksm.merged", pages * PAGE_BYTES if told else None, processes_that_offer=offered, **since)
        if companion := subject.instance.companion:
            programs: dict[str, int] = {}
            for pid, program in companion.processes().items():
                programs[program] = programs.get(program, 0) + read_process(pid).pss
            yield row("engine", sum(programs.values()), engine=companion.title, programs=programs)
            if state == "idle" and companion.alone_bytes is not None:
                yield row("engine.alone", companion.alone_bytes)
        yield row("host.available_change", subject.host_available_before_bytes - host["available_bytes"])
        if not subject.instance.opaque and subject.has_own_kernel:
            seen = guest_view(facts.parse_meminfo(subject.read_inside("/proc/meminfo")))
            yield row("guest.used", seen["used"], total_bytes=seen["total"])
            yield row("guest.cache", seen["cache"])


def _since(before: ksm.State | None, now: ksm.State) -> dict[str, object]:
    """What ksmd has done for the whole host since the launch."""
    found: dict[str, object] = {"host_saved_bytes": now.sharing_pages * PAGE_BYTES}
    if before is not None:
        found["full_scans"] = now.full_scans - before.full_scans
        if now.daemon_seconds is not None and before.daemon_seconds is not None:
            found["daemon_seconds"] = now.daemon_seconds - before.daemon_seconds
    return found


def guest_view(meminfo: Mapping[str, int]) -> dict[str, int]:
    """What a kernel itself counts, from its /proc/meminfo in bytes: ``total``, ``used`` (total less available:
    what could not be given to a new program without swapping), ``cache`` (page cache and buffers).
    """
    return {
        "total": meminfo["MemTotal"],
        "used": meminfo["MemTotal"] - meminfo["MemAvailable"],
        "cache": meminfo["Cached"] + meminfo.get("Buffers", 0),
    }


def read_process(pid: int, proc: Path = PROC) -> ProcessMemory:
    """One process's memory; nothing for one that ended meanwhile, which holds nothing any more."""
    with suppress(FileNotFoundError, ProcessLookupError):
        rollup = facts.parse_meminfo((proc / str(pid) / "smaps_rollup").read_text())
        return ProcessMemory(
            pss=rollup.get("Pss", 0),
            rss=rollup.get("Rss", 0),
            mapped=writable_bytes((proc / str(pid) / "maps").read_text()),
            huge=rollup.get("AnonHugePages", 0),
            swap=rollup.get("Swap", 0),
            shared=rollup.get("Shared_Clean", 0) + rollup.get("Shared_Dirty", 0),
            private=rollup.get("Private_Clean", 0) + rollup.get("Private_Dirty", 0),
        )
    return ProcessMemory()


def read_processes(pids: Iterable[int]) -> ProcessMemory:
    """What several processes have together; of those with one address space one counts, as the kernel counts it."""
    return sum((read_process(pid) for pid in address_spaces(pids)), start=ProcessMemory())


def address_spaces(pids: Iterable[int]) -> list[int]:
    """Of those that share one the first: User-mode Linux is three such processes, and a vfork(2) two as long as it
    lasts. Where kcmp(2) can't be asked, all of them.
    """
    found: list[int] = []
    for pid in pids:
        if not any(_one_space(pid, other) for other in found):
            found.append(pid)
    return found


def _one_space(pid: int, other: int) -> bool:
    """Whether two processes share their memory, as clone(2) makes them by CLONE_VM."""
    try:
        return system_call("kcmp", pid, other, KCMP_VM) == 0
    except OSError:
        return False


def writable_bytes(maps: str) -> int:
    """The summed size of the writable mappings in proc_pid_maps(5)."""
    total = 0
    for line in maps.splitlines():
        span, permissions, *_ = line.split(maxsplit=2)
        if permissions[1] == "w":
            first, _, last = span.partition("-")
            total += int(last, 16) - int(first, 16)
    return total
