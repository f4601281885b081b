"""Whether a QEMU is really confined, as the kernel tells: what should hold is looked at, not assumed."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from lab.errors import LabError
from lab.host.identity import ownspace
from lab.host.identity.lone import user_of

SECCOMP_MODE_FILTER = "2"
FILTERS = 2  # lab's and QEMU's own


@dataclass(frozen=True, slots=True, kw_only=True)
class Confinement:
    """What a process is and may, of proc_pid_status(5). Users and groups: real, effective, saved, file system."""

    users: tuple[int, ...]
    groups: tuple[int, ...]
    supplementary: tuple[int, ...]
    capabilities: int  # any set, the bounding and the ambient included
    no_new_privs: bool
    filters: int  # of system calls; a kernel before 5.9 tells only whether there is any

    @property
    def uid(self) -> int:
        """The effective one."""
        return self.users[1]

    @classmethod
    def of(cls, pid: int) -> Self:
        """Of a living process. Raises LabError when it has ended."""
        try:
            text = Path(f"/proc/{pid}/status").read_text()
        except (FileNotFoundError, ProcessLookupError) as error:
            raise LabError(f"process {pid} has ended") from error
        fields = {name: value.split() for name, _, value in (line.partition(":") for line in text.splitlines())}
        filtered = fields["Seccomp"] == [SECCOMP_MODE_FILTER]
        capabilities = 0
        for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
            capabilities |= int(fields[name][0], 16)
        return cls(
            users=tuple(map(int, fields["Uid"])),
            groups=tuple(map(int, fields["Gid"])),
            supplementary=tuple(map(int, fields["Groups"])),
            capabilities=capabilities,
            no_new_privs=fields["NoNewPrivs"] == ["1"],
            filters=int(fields["Seccomp_filters"][0]) if "Seccomp_filters" in fields else FILTERS * filtered,
        )

    def holds_for(self, pid: int, inherited: int = 0) -> bool:
        """Whether it is what jail.c makes of process ``pid``, with QEMU's own filter besides. An ordinary user's
        has the groups that lab itself has kept, all or none: the user's own, which is root's in lab's namespace, and
        others, which have no number in there. ``inherited`` are filters that confine nothing.
        """
        own = (user_of(pid),) * 4
        kept = set(os.getgroups()) if ownspace.here() else set()
        return (
            (self.users, self.groups) == (own, own)
            and set(self.supplementary) <= kept
            and self.capabilities == 0
            and self.no_new_privs
            and self.filters >= FILTERS + inherited
        )


def require_confined(pid: int | None, name: str, inherited: int = 0) -> None:
    """Raise LabError unless the QEMU of machine ``name`` is confined. One that has ended already is."""
    if pid is None:
        return
    try:
        found = Confinement.of(pid)
    except LabError:
        return
    if not found.holds_for(pid, inherited):
        raise LabError(f"QEMU of {name} is not confined, and is ended", detail=str(found), hint="lab doctor")
