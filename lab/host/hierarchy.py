"""Where this host's cgroup controllers are mounted (cgroups(7)): v1, v2 or both at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cache
from pathlib import Path


class Mode(StrEnum):
    """What the host mounts. In hybrid mode the v2 tree holds no controller, yet it still kills and freezes."""

    V1 = "v1"
    V2 = "v2"
    HYBRID = "hybrid"
    NONE = "none"


KNOWN_V1 = frozenset(
    {"blkio", "cpu", "cpuacct", "cpuset", "devices", "freezer", "hugetlb", "memory", "misc", "net_cls"}
    | {"net_prio", "perf_event", "pids", "rdma"}
)

JOINED = ("memory", "cpu", "cpuacct", "pids")
"""The v1 controllers that limit or account for an instance; freezer and devices only without a v2 tree."""

JOINED_WITHOUT_V2 = ("freezer", "devices")

DELEGATED = ("cpu", "memory", "pids", "io")
"""The v2 controllers that lab passes down to its groups through cgroup.subtree_control."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hierarchies:
    """The mount points: ``v1`` by controller name, ``unified`` for cgroup2 with the controllers it offers."""

    v1: Mapping[str, Path] = field(default_factory=dict)
    unified: Path | None = None
    unified_controllers: frozenset[str] = frozenset()

    @property
    def mode(self) -> Mode:
        if self.unified is None:
            return Mode.V1 if self.v1 else Mode.NONE
        return Mode.HYBRID if self.v1 else Mode.V2

    def mount_of(self, controller: str) -> Path | None:
        """Where ``controller`` lives, or None when this host doesn't offer it."""
        if controller in self.v1:
            return self.v1[controller]
        return self.unified if controller in self.unified_controllers else None

    def joined(self) -> tuple[Path, ...]:
        """The mount points under which every group of lab's gets a directory, each once."""
        names = JOINED if self.unified else JOINED + JOINED_WITHOUT_V2
        mounts = [self.v1[name] for name in names if name in self.v1]
        if self.unified is not None:
            mounts.append(self.unified)
        return tuple(dict.fromkeys(mounts))

    @classmethod
    def detect(cls, root: Path = Path("/")) -> Hierarchies:
        """Read ``root``/proc/self/mountinfo (proc_pid_mountinfo(5)); mount points are taken below ``root``."""
        v1: dict[str, Path] = {}
        unified: Path | None = None
        for mount_point, kind, options in _mounts(root):
            if kind == "cgroup2" and unified is None:
                unified = mount_point
            elif kind == "cgroup":
                for controller in options.split(","):
                    if controller in KNOWN_V1:
                        v1.setdefault(controller, mount_point)
        offered = frozenset((unified / "cgroup.controllers").read_text().split()) if unified else frozenset()
        return cls(v1=v1, unified=unified, unified_controllers=offered)


@dataclass(frozen=True, slots=True, kw_only=True)
class Unused(Hierarchies):
    """The v1 hierarchies that lab does not join. Other runtimes make their groups in every one there is."""

    rest: tuple[Path, ...] = ()

    def joined(self) -> tuple[Path, ...]:
        return self.rest

    @classmethod
    def detect(cls, root: Path = Path("/")) -> Unused:
        used = Hierarchies.detect(root)
        places = (mount_point for mount_point, kind, _ in _mounts(root) if kind == "cgroup")
        rest = tuple(dict.fromkeys(place for place in places if place not in used.joined()))
        return cls(v1={name: place for name, place in used.v1.items() if place in rest}, rest=rest)


def _mounts(root: Path) -> Iterator[tuple[Path, str, str]]:
    """Every mount by its place below ``root``, file system type and super block options."""
    for line in (root / "proc/self/mountinfo").read_text().splitlines():
        place, _, source = line.partition(" - ")
        kind, _, options = source.split(" ", 2)
        yield root / place.split(" ")[4].replace("\\040", " ").lstrip("/"), kind, options


@cache
def host_hierarchies() -> Hierarchies:
    """This host's, read once per process."""
    return Hierarchies.detect()
