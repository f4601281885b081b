"""Control groups: limits, accounting, freezing and killing, v1 and v2 behind one face (cgroups(7)).

A group is one relative path, ``lab/<session>/<instance>``, that exists below every hierarchy which limits or
accounts for something. It is made and limited before its first process enters, so that all memory is charged
to it from the first page on. Every limit is read back: one that did not take is a LimitError, never silence.

Sources: Documentation/admin-guide/cgroup-v1/ and cgroup-v2.rst in the kernel's tree.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from lab.errors import LabError, LimitError
from lab.host import cgroupfs, privilege
from lab.host.group import DOCTOR, Group
from lab.host.hierarchy import Hierarchies, host_hierarchies
from lab.model import Limits

CPU_PERIOD_MICROSECONDS = 100_000
SMALLEST_CPU_QUOTA_MICROSECONDS = 1_000
LARGEST_FOLIO_BYTES = 2 << 20
V1_UNLIMITED_BYTES = 1 << 62  # v1 shows "no limit" as the largest multiple of a page below 2^63


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryUsage:
    """What the kernel charges to a group, in bytes. ``None`` where this kernel doesn't tell."""

    usage_bytes: int
    anon_bytes: int
    file_bytes: int  # page cache, tmpfs and shared memory included
    kernel_bytes: int | None
    inactive_file_bytes: int
    peak_bytes: int | None
    limit_bytes: int | None

    @property
    def working_set_bytes(self) -> int:
        """Usage without the page cache that could be dropped at once, as kubelet and cAdvisor define it."""
        return max(0, self.usage_bytes - self.inactive_file_bytes)


@dataclass(frozen=True, slots=True, kw_only=True)
class CpuUsage:
    """CPU time charged to a group since it was made, in seconds; throttling is 0 without a quota."""

    total_seconds: float
    user_seconds: float
    system_seconds: float
    throttled_seconds: float
    throttled_periods: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Pressure:
    """Pressure stall information of one resource: seconds stalled since the group was made (PSI, psi.rst)."""

    some_seconds: float
    full_seconds: float


class ControlGroup:
    """One group in every hierarchy. Thread-safe as far as the kernel's files are."""

    def __init__(self, path: PurePosixPath | str, hierarchies: Hierarchies) -> None:
        self.path = PurePosixPath(path)
        if self.path.is_absolute() or ".." in self.path.parts or not self.path.parts:
            raise ValueError(f"a group's path is relative and stays below its root: {path}")
        self.hierarchies = hierarchies
        self.group = Group(str(self.path), hierarchies.mounted(), map(str, hierarchies.joined()))

    def __repr__(self) -> str:
        return f"ControlGroup({str(self.path)!r})"

    # Making and removing

    @classmethod
    def create(
        cls, path: PurePosixPath | str, limits: Limits, *, hierarchies: Hierarchies | None = None
    ) -> ControlGroup:
        """Make the group and its parents, set ``limits`` and read them back.

        Raises LimitError if a limit's controller is missing or a limit did not take, LabError if the group
        exists or can't be made; nothing is left behind then.
        """
        group = cls(path, hierarchies or host_hierarchies())
        if not group.directories:
            raise LabError("no cgroup hierarchy is mounted", hint=DOCTOR)
        group._make_directories(limits)
        try:
            group._set(limits)
            group._verify(limits)
        except BaseException:
            group.remove()
            raise
        return group

    @classmethod
    def open(cls, path: PurePosixPath | str, *, hierarchies: Hierarchies | None = None) -> ControlGroup:
        """Name a group that may exist already: to add to it, read it, kill it or remove what is left of it."""
        return cls(path, hierarchies or host_hierarchies())

    @property
    def directories(self) -> tuple[Path, ...]:
        """The group's directory in each hierarchy."""
        return tuple(mount / self.path for mount in self.hierarchies.joined())

    @property
    def unified_directory(self) -> Path | None:
        """Its directory in the v2 tree, present in v2 and hybrid mode."""
        return self.hierarchies.unified / self.path if self.hierarchies.unified else None

    def exists(self) -> bool:
        """Whether any hierarchy still holds it."""
        return any(directory.exists() for directory in self.directories)

    def remove(self, timeout_seconds: float = 10.0, *, keep_parents: bool = False) -> None:
        """Remove the group, groups below it, and parents that became empty; verified. Idempotent.

        Its processes must be dead or dying: a zombie that nobody reaped yet does not matter, a living
        process makes this raise LabError after ``timeout_seconds``. ``keep_parents`` saves their removal
        when a sibling follows soon.
        """
        self.group.remove(timeout_seconds, keep_parents=keep_parents)

    def prune_parents(self) -> None:
        """Remove the group's parents, as far as they are empty."""
        self.group.prune_parents()

    def _make_directories(self, limits: Limits) -> None:
        for controller, wanted in (("memory", limits.memory_bytes), ("cpu", limits.cpus), ("pids", limits.pids)):
            if wanted is not None and self.hierarchies.mount_of(controller) is None:
                raise LimitError(f"this host has no {controller} cgroup controller to limit with", hint=DOCTOR)
        made: list[Path] = []
        try:
            for mount in self.hierarchies.joined():
                directory = mount / self.path
                cgroupfs.make(mount, self.path, delegate=mount == self.hierarchies.unified)
                made.append(directory)
        except OSError as error:
            for directory in made:
                with suppress(OSError):
                    directory.rmdir()
            hint = privilege.remedy() if error.errno in (errno.EACCES, errno.EPERM) else ""
            raise LabError(f"cgroup {self.path} can't be made: {error}", hint=hint) from error

    # Limits

    def _set(self, limits: Limits) -> None:
        try:
            if limits.memory_bytes is not None:
                self._set_memory(limits.memory_bytes)
            if limits.cpus is not None:
                self._set_cpus(limits.cpus)
            if limits.pids is not None:
                self.write("pids", "pids.max", str(limits.pids))
        except OSError as error:
            raise LimitError(f"a limit of cgroup {self.path} can't be set: {error}", hint=DOCTOR) from error

    def _set_memory(self, limit_bytes: int) -> None:
        """Swap gets nothing on top: a limit means the same whether or not the host has swap."""
        if "memory" not in self.hierarchies.v1:
            self.write("memory", "memory.max", str(limit_bytes))
            if self._has("memory", "memory.swap.max"):
                self.write("memory", "memory.swap.max", "0")
            return
        if self._look("memory", "memory.use_hierarchy") == "0":
            self.write("memory", "memory.use_hierarchy", "1")
        self.write("memory", "memory.limit_in_bytes", str(limit_bytes))
        if self._has("memory", "memory.memsw.limit_in_bytes"):  # its limit includes the memory itself
            self.write("memory", "memory.memsw.limit_in_bytes", str(limit_bytes))

    def _set_cpus(self, cpus: float) -> None:
        quota = round(cpus * CPU_PERIOD_MICROSECONDS)
        if quota < SMALLEST_CPU_QUOTA_MICROSECONDS:
            raise LimitError(f"{cpus:g} CPUs is below the kernel's smallest quota, 0.01")
        if "cpu" not in self.hierarchies.v1:
            self.write("cpu", "cpu.max", f"{quota} {CPU_PERIOD_MICROSECONDS}")
            return
        self.write("cpu", "cpu.cfs_period_us", str(CPU_PERIOD_MICROSECONDS))
        self.write("cpu", "cpu.cfs_quota_us", str(quota))

    def _verify(self, limits: Limits) -> None:
        if limits.memory_bytes is not None:
            page, held_bytes = os.sysconf("SC_PAGE_SIZE"), self._memory_limit()
            if held_bytes != limits.memory_bytes // page * page:
                raise LimitError(f"memory limit of {limits.memory_bytes} bytes did not hold: {held_bytes}")
        if limits.cpus is not None:
            held_cpus = self._cpus()
            if held_cpus is None or abs(held_cpus - limits.cpus) > 1e-5:
                raise LimitError(f"limit of {limits.cpus:g} CPUs did not hold: {held_cpus}")
        if limits.pids is not None and (held_pids := self._pids()) != limits.pids:
            raise LimitError(f"limit of {limits.pids} pids did not hold: {held_pids}")

    def effective_limits(self) -> Limits:
        """The limits as the kernel holds them now; None where there is none or no controller."""
        return Limits(memory_bytes=self._memory_limit(), cpus=self._cpus(), pids=self._pids())

    def _memory_limit(self) -> int | None:
        text = self._look("memory", "memory.limit_in_bytes" if "memory" in self.hierarchies.v1 else "memory.max")
        return None if text in (None, "max") or int(text) >= V1_UNLIMITED_BYTES else int(text)

    def _cpus(self) -> float | None:
        if "cpu" in self.hierarchies.v1:
            held = [self._look("cpu", "cpu.cfs_quota_us"), self._look("cpu", "cpu.cfs_period_us")]
        else:
            held = [*(self._look("cpu", "cpu.max") or "max 0").split()]
        quota, period = held
        return None if quota in (None, "max", "-1") or period is None else int(quota) / int(period)

    def _pids(self) -> int | None:
        text = self._look("pids", "pids.max")
        return None if text in (None, "max") else int(text)

    # Processes

    def add(self, pid: int) -> None:
        """Move the process ``pid`` with all its threads into the group."""
        self.group.add(pid)

    def processes(self) -> set[int]:
        """The process ids in the group and below, without zombies and threads of the kernel: they hold nothing."""
        return self.group.processes()

    def freeze(self, timeout_seconds: float = 5.0) -> None:
        """Stop every process in the group where it stands; returns when all have stopped."""
        self.group.freeze(timeout_seconds)

    def thaw(self) -> None:
        """Let frozen processes go on."""
        self.group.thaw()

    def kill(self, timeout_seconds: float = 10.0) -> None:
        """SIGKILL everything in the group and wait until it is dead; new forks don't escape."""
        self.group.kill(timeout_seconds)

    # Accounting

    def memory(self) -> MemoryUsage:
        """What is charged to the group now. Raises GroupGone, and LabError without a memory controller."""
        stat = self._counts("memory", "memory.stat")
        if "memory" in self.hierarchies.v1:
            return MemoryUsage(
                usage_bytes=int(self._read("memory", "memory.usage_in_bytes")),
                anon_bytes=stat["total_rss"],
                file_bytes=stat["total_cache"],
                kernel_bytes=self._optional("memory", "memory.kmem.usage_in_bytes"),
                inactive_file_bytes=stat["total_inactive_file"],
                peak_bytes=self._optional("memory", "memory.max_usage_in_bytes"),
                limit_bytes=self._memory_limit(),
            )
        return MemoryUsage(
            usage_bytes=int(self._read("memory", "memory.current")),
            anon_bytes=stat["anon"],
            file_bytes=stat["file"],
            kernel_bytes=stat.get("kernel"),
            inactive_file_bytes=stat["inactive_file"],
            peak_bytes=self._optional("memory", "memory.peak"),
            limit_bytes=self._memory_limit(),
        )

    def cpu(self) -> CpuUsage:
        """CPU time charged to the group so far, of processes that ended too. Raises GroupGone, LabError."""
        if "cpuacct" in self.hierarchies.v1:
            quota = cgroupfs.pairs(self._look("cpu", "cpu.stat") or "")
            return CpuUsage(
                total_seconds=int(self._read("cpuacct", "cpuacct.usage")) / 1e9,
                user_seconds=int(self._read("cpuacct", "cpuacct.usage_user")) / 1e9,
                system_seconds=int(self._read("cpuacct", "cpuacct.usage_sys")) / 1e9,
                throttled_seconds=quota.get("throttled_time", 0) / 1e9,
                throttled_periods=quota.get("nr_throttled", 0),
            )
        used = self._counts("cpu", "cpu.stat")
        if "usage_usec" not in used:
            raise LabError("this host accounts for no group's CPU time", hint=DOCTOR)
        return CpuUsage(
            total_seconds=used["usage_usec"] / 1e6,
            user_seconds=used["user_usec"] / 1e6,
            system_seconds=used["system_usec"] / 1e6,
            throttled_seconds=used.get("throttled_usec", 0) / 1e6,
            throttled_periods=used.get("nr_throttled", 0),
        )

    def pids_current(self) -> int:
        """How many tasks (threads count) the group holds. Raises GroupGone, LabError."""
        return int(self._read("pids", "pids.current"))

    def limit_hits(self) -> dict[str, int]:
        """How often the group met a limit so far: ``memory`` (charges that failed at first), ``oom`` (processes
        killed for want of memory), ``cpu`` (periods throttled), ``pids`` (forks refused). Left out where the kernel
        does not count. On v1 ``memory`` may be no more than 1 since the last `forget_peak`.
        """
        found = {}
        files = [("cpu", "cpu.stat", {"cpu": "nr_throttled"}), ("pids", "pids.events", {"pids": "max"})]
        if "memory" in self.hierarchies.v1:
            files.append(("memory", "memory.oom_control", {"oom": "oom_kill"}))
            # Some kernels (6.18) leave memory.failcnt at 0 whatever happens; the peak tells as much as one hit. It
            # stays below the limit by the size of a folio that did not fit, 2 MiB maybe.
            used = self.memory()
            full = used.limit_bytes is not None and (used.peak_bytes or 0) >= used.limit_bytes - LARGEST_FOLIO_BYTES
            found["memory"] = max(int(full), self._optional("memory", "memory.failcnt") or 0)
        else:
            files.append(("memory", "memory.events", {"memory": "max", "oom": "oom_kill"}))
        for controller, name, wanted in files:
            counts = cgroupfs.pairs(self._look(controller, name) or "")
            found.update({limit: counts[key] for limit, key in wanted.items() if key in counts})
        return found

    def forget_peak(self) -> None:
        """Let the peak of memory be what is used now, where the kernel offers that for all (v1)."""
        if self._has("memory", "memory.max_usage_in_bytes"):
            self.write("memory", "memory.max_usage_in_bytes", "0")

    def pressure(self) -> Mapping[str, Pressure] | None:
        """Stall times by resource (cpu, memory, io), or None where this kernel or mode has no PSI per group."""
        found = {}
        for resource in ("cpu", "memory", "io"):
            text = self._look("cgroup", f"{resource}.pressure") or ""
            totals = {line.split()[0]: int(line.rsplit("total=", 1)[1]) / 1e6 for line in text.splitlines()}
            if totals:
                found[resource] = Pressure(some_seconds=totals["some"], full_seconds=totals.get("full", 0.0))
        return found or None

    def reclaim(self, amount_bytes: int) -> int:
        """Ask the kernel to take memory back from the group; returns how many bytes usage fell by.

        v2 is asked for ``amount_bytes``; v1 knows only "all that can be" (memory.force_empty). Falling short
        is no error. Raises LabError where the kernel offers neither (v2 before Linux 5.19).
        """
        before = self.memory().usage_bytes
        name, value = ("memory.reclaim", str(amount_bytes))
        if "memory" in self.hierarchies.v1:
            name, value = ("memory.force_empty", "0")
        if not self._has("memory", name):
            raise LabError("this kernel can't reclaim a cgroup's memory on request", hint="needs Linux 5.19")
        try:
            self.write("memory", name, value)
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EBUSY):
                raise
        return max(0, before - self.memory().usage_bytes)

    # Files

    def _has(self, controller: str, name: str) -> bool:
        return self.group.has(controller, name)

    def _look(self, controller: str, name: str) -> str | None:
        return self.group.look(controller, name)

    def _read(self, controller: str, name: str) -> str:
        return self.group.read(controller, name)

    def _optional(self, controller: str, name: str) -> int | None:
        text = self._look(controller, name)
        return None if text is None else int(text)

    def _counts(self, controller: str, name: str) -> dict[str, int]:
        return cgroupfs.pairs(self._read(controller, name))

    def write(self, controller: str, name: str, value: str) -> None:
        """Write to one of the group's files, for what has no method. Raises OSError."""
        self.group.write(controller, name, value)
