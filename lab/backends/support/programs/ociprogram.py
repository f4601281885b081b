"""A program with the OCI command line, and how it is put where it is to work: into groups, in front of v1 alone."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from lab.backends.support.programs.binary import Binary
from lab.host import syscalls
from lab.host.cgroup import mounted
from lab.host.cgroup.hierarchy import Mode, host_hierarchies
from lab.host.identity import privilege

ENTERING, CLOSING = "echo 0 >&{0} && ", " {0}>&-"
"""For sh: enter the group whose cgroup.procs is that descriptor, below 10, and close it on becoming the program."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Runtime:
    """A program with the OCI command line.

    ``refuses_hybrid``: it works with cgroup v1 or v2 and not with both, so that on a hybrid host it is shown v1
    alone. ``keeps_to_v1``: it sees both there, and enters the groups of v1 alone. Either is put into the v2 group,
    which has no controller there, before it begins. ``options`` stand before each of its verbs. ``states`` is where
    it keeps state, below a folder per container; else that is in the bundle's.
    """

    binary: Binary
    refuses_hybrid: bool = False
    keeps_to_v1: bool = False
    options: tuple[str, ...] = ()
    states: Path | None = None

    @property
    def name(self) -> str:
        """How it is called where something is said of it."""
        return self.binary.path.name

    def hidden(self) -> Path | None:
        """The mount it must not see."""
        if not self.refuses_hybrid:
            return None
        if privilege.is_rootless():
            return mounted_unified()
        return host_hierarchies().unified if self.is_put_into_group() else None

    def is_put_into_group(self) -> bool:
        """Whether it would leave the v2 group empty; an ordinary user's, which can't make groups in all hierarchies,
        is put into those that there are, and told of none.
        """
        hybrid = host_hierarchies().mode is Mode.HYBRID
        return privilege.is_rootless() or ((self.refuses_hybrid or self.keeps_to_v1) and hybrid)


def mounted_unified() -> Path | None:
    """Where this host has cgroup v2 beside v1, whoever may use it."""
    found = {kind: Path(place) for place, kind, _ in mounted.mounts() if kind in ("cgroup", "cgroup2")}
    return found.get("cgroup2") if "cgroup" in found else None


def hide(mount: Path) -> None:
    """Take it away, in this thread's own mounts; an ordinary user, who may not, covers it (mount_namespaces(7))."""
    if privilege.is_rootless():
        syscalls.mount("tmpfs", str(mount), "tmpfs", syscalls.MS_RDONLY, "size=0k")
    else:
        syscalls.umount2(str(mount), syscalls.MNT_DETACH)


def through_groups(
    directories: Sequence[str], words: list[str], descriptors: list[int], opened: ExitStack
) -> tuple[list[str], list[int]]:
    """A command and its descriptors, by way of a shell that enters these groups."""
    if not directories:
        return words, descriptors
    procs = [os.open(f"{each}/cgroup.procs", os.O_WRONLY | os.O_CLOEXEC) for each in directories]
    for each in procs:
        opened.callback(os.close, each)
    numbers = range(len(descriptors), len(descriptors) + len(procs))
    enter, close = ("".join(text.format(number) for number in numbers) for text in (ENTERING, CLOSING))
    return ["/bin/sh", "-c", f'{enter}exec "$@"{close}', "sh", *words], [*descriptors, *procs]
