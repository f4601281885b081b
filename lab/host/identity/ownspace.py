"""Whether this process is an ordinary user's lab, root in a user namespace of its own (user_namespaces(7)).

`lab.host.entering` makes that namespace, and leaves a word in the environment for the programs that are
started in it. A word alone is not believed: the kernel's table of ids has to say the same. Root of the host's own
namespace, and root in a container that others have made, are never taken for it, whatever their environment says.

Imports nothing: the small process that forks containers asks too.
"""

from __future__ import annotations

import os

MOST_ID = (1 << 31) - 1
"""The largest number of a user or group, as for docker and runc. The kernel cuts larger ones, 2^32 to root's, and
2^32 - 1 is no user: for setresuid(2) it is "as it is", which is root.
"""

WORD = "LAB_OWN_NAMESPACE"
"""The variable that names the user who has entered."""


def owner() -> int:
    """The user, as the host numbers it, whom root of this namespace is; -1 where this is no namespace of lab's."""
    word = os.environ.get(WORD, "")
    if not word.isascii() or not word.isdigit():
        return -1
    first = table()[:1]
    return int(word) if first == [(0, int(word), 1)] and int(word) != 0 else -1


def here() -> bool:
    """Whether this process is in such a namespace."""
    return WORD in os.environ and owner() > 0


def user_id() -> int:
    """Who this process acts as, for those that import little; others ask `lab.host.identity.privilege`."""
    return os.geteuid()


def group_id() -> int:
    """The group of what this process makes."""
    return os.getegid()


def ordinary_user() -> int:
    """The ordinary user whose this process is, in such a namespace or not; -1 where it is root's."""
    found = owner()
    return found if found > 0 else user_id() or -1


def has_ids() -> bool:
    """Whether it knows more users than its own root: a range of subordinate ids has been mapped (subuid(5))."""
    return len(table()) > 1


def keeps_groups() -> bool:
    """Whether nobody can leave the user's groups: that is forbidden where there is one id (user_namespaces(7))."""
    return here() and not has_ids()


def table() -> list[tuple[int, int, int]]:
    """/proc/self/uid_map: the first id inside, the first outside, how many.

    Read once: a child that has joined a container is in no /proc that it sees.
    """
    if not _table:
        _table.extend(read_table("uid_map"))
    return _table


def read_table(name: str) -> list[tuple[int, int, int]]:
    """The same as it is now, or that of groups, ``gid_map``."""
    with open(f"/proc/self/{name}") as file:  # noqa: PTH123 - without pathlib, whoever asks
        lines = [line.split() for line in file]
    return [(int(inside), int(outside), int(count)) for inside, outside, count in lines]


def recognise() -> None:
    """Take root of a user namespace that another program has made of one user's id, as podman does, for that user;
    for `lab-oci`, which such programs call. Root of any other namespace, the host's above all, stays root.
    """
    first = table()[:1]
    if first and first[0][0] == 0 and first[0][1] != 0 and first[0][2] == 1 and user_id() == 0:
        announce(first[0][1])


def announce(user: int) -> None:
    """Say to this process and to what it will start that ``user`` has entered."""
    os.environ[WORD] = str(user)
    _table.clear()


_table: list[tuple[int, int, int]] = []
