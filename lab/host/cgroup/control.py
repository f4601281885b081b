"""Control groups of lab's instances: a `lab.host.cgroup.group.Group` with pathlib's paths, and with what it has used.

A group is one relative path, ``lab/<session>/<instance>``, that exists below every hierarchy which limits or
accounts for something. Limits are written by `lab.runtime.cgroup.resources`, before the first process enters, so
that all memory is charged to it from the first page on; what the group uses is read by `lab.host.cgroup.accounting`.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from lab.errors import LabError
from lab.host.cgroup import accounting
from lab.host.cgroup.accounting import CpuUsage, MemoryUsage, PageFaults
from lab.host.cgroup.group import DOCTOR, Group
from lab.host.cgroup.hierarchy import Hierarchies, host_hierarchies
from lab.model import Limits

__all__ = ["ControlGroup", "CpuUsage", "MemoryUsage", "PageFaults"]


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

    @classmethod
    def open(cls, path: PurePosixPath | str, *, hierarchies: Hierarchies | None = None) -> ControlGroup:
        """Name a group that may exist already: to add to it, read it, kill it or remove what is left of it."""
        return cls(path, hierarchies or host_hierarchies())

    @property
    def directories(self) -> tuple[Path, ...]:
        """The group's directory in each hierarchy."""
        return tuple(map(Path, self.group.directories))

    @property
    def unified_directory(self) -> Path | None:
        """Its directory in the v2 tree, present in v2 and hybrid mode."""
        return self.hierarchies.unified / self.path if self.hierarchies.unified else None

    def exists(self) -> bool:
        """Whether any hierarchy still holds it."""
        return self.group.exists()

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

    def effective_limits(self) -> Limits:
        """The limits as the kernel holds them now; None where there is none or no controller."""
        return Limits(
            memory_bytes=accounting.memory_held(self.group),
            cpus=accounting.cpus_held(self.group),
            pids=accounting.pids_held(self.group),
        )

    def memory(self) -> MemoryUsage | None:
        """What is charged to the group now; None where nobody charges memory to it. Raises GroupGone."""
        return accounting.memory(self.group)

    def cpu(self) -> CpuUsage:
        """CPU time charged to the group so far, of processes that ended too. Raises GroupGone, LabError."""
        found = accounting.cpu(self.group)
        if found is None:
            raise LabError("this host accounts for no group's CPU time", hint=DOCTOR)
        return found

    def faults(self) -> PageFaults | None:
        """The page faults of its processes so far, of those that ended too; None where nobody counts them. See
        `lab.host.cgroup.accounting.faults`.
        """
        return accounting.faults(self.group)

    def limit_hits(self) -> dict[str, int]:
        """How often the group met a limit so far; see `lab.host.cgroup.accounting.limit_hits`."""
        return accounting.limit_hits(self.group)

    # Asking for something

    def forget_peak(self) -> None:
        """Let the peak of memory be what is used now, where the kernel offers that for all (v1)."""
        if self.group.has("memory", "memory.max_usage_in_bytes"):
            self.write("memory", "memory.max_usage_in_bytes", "0")

    def write(self, controller: str, name: str, value: str) -> None:
        """Write to one of the group's files, for what has no method. Raises OSError."""
        self.group.write(controller, name, value)
