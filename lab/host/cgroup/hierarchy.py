"""Where this host's cgroup controllers are mounted (cgroups(7)): v1, v2 or both at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cache
from pathlib import Path

from lab.host.cgroup import cgroupfs, delegation, mounted
from lab.host.cgroup.mounted import Mounted, mounts
from lab.host.identity import ownspace


class Mode(StrEnum):
    """What the host mounts. In hybrid mode the v2 tree holds no controller, yet it still kills and freezes."""

    V1 = "v1"
    V2 = "v2"
    HYBRID = "hybrid"
    NONE = "none"


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
        return tuple(map(Path, self.mounted().joined()))

    def mounted(self) -> Mounted:
        """The same as plain strings."""
        places = {name: str(place) for name, place in self.v1.items()}
        return Mounted(places, str(self.unified or ""), self.unified_controllers)

    @classmethod
    def detect(cls, root: Path = Path("/")) -> Hierarchies:
        """Read ``root``/proc/self/mountinfo (proc_pid_mountinfo(5)); mount points are taken below ``root``."""
        found = Mounted.detect(str(root))
        return cls(
            v1={name: Path(place) for name, place in found.v1.items()},
            unified=Path(found.unified) if found.unified else None,
            unified_controllers=found.unified_controllers,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Unused(Hierarchies):
    """The v1 hierarchies that lab does not join. Other runtimes make their groups in every one there is."""

    rest: tuple[Path, ...] = ()

    def joined(self) -> tuple[Path, ...]:
        return self.rest

    @classmethod
    def detect(cls, root: Path = Path("/")) -> Unused:
        used = Hierarchies.detect(root)
        if ownspace.here():
            return cls()  # other runtimes of the user's are in other namespaces
        places = (Path(place) for place, kind, _ in mounts(str(root)) if kind == "cgroup")
        rest = tuple(dict.fromkeys(place for place in places if place not in used.joined()))
        return cls(v1={name: place for name, place in used.v1.items() if place in rest}, rest=rest)


@cache
def host_hierarchies() -> Hierarchies:
    """This host's, read once per process."""
    return Hierarchies.detect()


def forget() -> None:
    """What is known of them holds no more: this process has become somebody else."""
    host_hierarchies.cache_clear()
    mounted.forget()
    delegation.forget()


def make_room(path: str) -> None:
    """Make the parents of a group that another program is going to make, in every hierarchy there is.

    It would make them itself, but may find one of them gone before it has used it: whoever removes the last group of
    a parent removes the parent, too. Raises OSError.
    """
    used = host_hierarchies()
    for mount in used.joined():
        cgroupfs.make_parents(mount, path, delegate=mount == used.unified)
    for mount in Unused.detect().joined():
        cgroupfs.make_parents(mount, path, delegate=False)
