"""Who lab is on this host, and what it may therefore do. The one module that asks.

Everything else names what it needs (`Need`), or is told by the kernel that it lacks it and then names the `remedy`.
That it takes root to be granted any of it is known here alone, and so is what an ordinary user is granted who has
become root of a user namespace of lab's own (`lab.host.identity.ownspace`).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum

from lab.errors import LabError
from lab.host.identity import ownspace
from lab.host.installed import BOOTSTRAP
from lab.model import Check

AS_ROOT = f"sudo {BOOTSTRAP}lab {{}}"
GIVE_IDS = "sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 $USER, a range that is nobody's yet"
CONFINED = "inside a container it needs to be a privileged one"


ROOTLESS = ", root of a user namespace of its own"


class Need(StrEnum):
    """What lab does that not everybody may."""

    CONTAIN = "make namespaces, mounts and control groups"
    OWNERS = "give files to other users"
    NETWORK = "make a network"


NOBODYS = 1_999_999_999
"""A user id that no account has: below those of lab's QEMUs (jail.c), above what distributions give away."""


def user_id() -> int:
    """Who this process acts as."""
    return ownspace.user_id()


def group_id() -> int:
    """The group of what this process makes."""
    return ownspace.group_id()


def granted(need: Need) -> bool:
    """Whether this process may do that at all; where root itself is confined the kernel may still refuse it."""
    return _is_root() and (need is not Need.OWNERS or not ownspace.here() or ownspace.has_ids())


def is_system_wide() -> bool:
    """Whether what lab keeps is the whole system's (/var/lib, /run), and not one user's."""
    return _is_root() and not ownspace.here()


def is_rootless() -> bool:
    """Whether this is an ordinary user's lab, in a user namespace of its own."""
    return ownspace.here()


def account() -> int:
    """The user whose lab this is, as the host numbers it, also from within a namespace of lab's own."""
    return ownspace.owner() if ownspace.here() else user_id()


def remedy(command: str = "doctor") -> str:
    """What to do where the kernel refused something: the line to type, or where root itself is confined."""
    return CONFINED if is_system_wide() else AS_ROOT.format(command)


def require(need: Need, what: str, command: str) -> None:
    """Raise LabError, ``what`` needs root, with the line to type, where the need is not granted."""
    if granted(need):
        return
    if ownspace.here():
        raise LabError(f"{what} needs subordinate ids", hint=GIVE_IDS)
    raise LabError(f"{what} needs root", hint=AS_ROOT.format(command))


def leave_root(user: int = NOBODYS) -> None:
    """Become ``user`` and its group for good, with no other group and no way to gain anything by an exec; where this
    process is not root's nothing is to be done. Call it before a thread is started: each has ids of its own for the
    kernel.

    Raises LabError where the kernel refuses it (in a user namespace that has no such id).
    """
    if not is_system_wide():
        return
    from lab.host import syscalls  # lab's own files may be out of that user's reach

    try:
        os.setgroups([])
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)
    except OSError as error:
        raise LabError(
            f"user {user} can't be taken on: {error.strerror}", hint="run it as an ordinary user"
        ) from error
    syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)
    if 0 in (*os.getresuid(), *os.getresgid(), *os.getgroups()):
        raise LabError("root could not be left", hint="run it as an ordinary user")


@contextmanager
def acting_as(user: int, group: int) -> Iterator[None]:
    """Meanwhile root opens files as ``user`` would, and so follows no link of theirs to what they may not touch
    (seteuid(2), path_resolution(7)). Nothing changes where this process is not root's, or ``user`` is root.
    """
    if user == 0 or not _is_root():
        yield
        return
    groups, own_group = os.getgroups(), group_id()
    try:
        os.setgroups([])
        os.setegid(group)
        os.seteuid(user)
        yield
    finally:
        os.seteuid(0)
        os.setegid(own_group)
        os.setgroups(groups)


def check() -> Check:
    """For `lab doctor`, and for every backend."""
    return Check(
        name="root",
        ok=granted(Need.CONTAIN) and granted(Need.NETWORK),
        found=f"user id {account()}{ROOTLESS if ownspace.here() else ''}",
        remedy=AS_ROOT.format("doctor"),
        required_by=("all",),
    )


def _is_root() -> bool:
    return user_id() == 0
