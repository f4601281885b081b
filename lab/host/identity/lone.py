"""Users that nobody else is, each for one process: a QEMU, or what gives addresses to a disk's system."""

from __future__ import annotations

from lab.errors import LabError
from lab.host.identity import ownspace, privilege

FIRST_USER = 2_000_000_000  # + the process's number. systemd's docs/UIDS-GIDS.md: nobody's
PIDS = 1 << 22  # as many as Linux ever has (proc(5), pid_max)
MOST_ALONE = 3  # users: root, and one each for an image and a QEMU


def users_inside() -> tuple[int, int]:
    """Of which users such a process of an ordinary user's is one: the first, and how many, the upper half of those
    that are mapped, since images' users have low numbers. Raises LabError where there is none but root.
    """
    mapped = sum(count for _, _, count in ownspace.table())
    if mapped < MOST_ALONE:
        raise LabError("a machine needs subordinate ids, of which QEMU is one", hint=privilege.GIVE_IDS)
    return mapped // 2, mapped - mapped // 2


def users() -> tuple[int, int]:
    """The same of whomever lab is: of root's each process has a user of its own."""
    return users_inside() if ownspace.here() else (FIRST_USER, PIDS)


def user_of(pid: int) -> int:
    """Who process ``pid`` is once it has left root, by jail.c or by `lab.network.dhcp`."""
    first, among = users()
    return first + pid % among
