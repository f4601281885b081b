"""`lab-oci` of an ordinary user: it becomes root of a user namespace, in which the same code makes the container's.

    the host             the user, and subordinate ids (subuid(5))
      a namespace        the user is root in it, subordinate ids are 1 and on: create, and verbs that come later
        the container's  what linux.uidMappings and linux.gidMappings say

The configuration numbers ids as the host does, as it would for runc, and is refused where it names one that is not
the user's. A container that needs no id but the user's own gets a namespace that has no other: nobody's help is
needed then. A later verb joins the namespace that is around the container's, which lasts as long as that.

Whoever calls from a user namespace already, as podman does, is its root, and is left there: what the configuration
says is meant as that namespace numbers it.
"""

from __future__ import annotations

import os
import sys

from lab.errors import LabError, UsageError
from lab.host.identity import ownspace
from lab.record import replace
from lab.shims import suppress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from lab.host.entering import Ids
    from lab.runtime.config.model import Config, IdMapping
    from lab.runtime.oci.store import Entry, State

ENTERED = "LAB_OCI_ENTERED"
"""In the environment of a command that has made its namespace, and starts itself again in there: see `readonly`."""

GO_IN = ("start", "exec", "delete")
"""The verbs that may have to be where the container was made: all else can be asked from outside by its owner."""
FOLDER = "lab-oci"
MOST_IDS = 0xFFFFFFFF
SPEC = "lab-oci spec --rootless writes a configuration that has one"


def is_outside() -> bool:
    """Whether this is an ordinary user's process that has entered no namespace yet."""
    return ownspace.user_id() != 0


def default_root(folder: str) -> str:
    """Where states are kept: ``folder`` for root, else the user's own place (XDG Base Directory Specification).

    Raises LabError where that is not the user's alone to change.
    """
    if ownspace.ordinary_user() <= 0:
        return folder
    from lab.host import entering, home

    root = home.runtime_root().parent / FOLDER
    if is_outside():
        entering.require_safe(root)
    return str(root)


def owner() -> str:
    """The name of the user whose containers are made; the number where there is no name."""
    account = ownspace.ordinary_user()
    if account <= 0:
        return "root"
    import pwd

    try:
        return pwd.getpwuid(account).pw_name
    except KeyError:
        return str(account)


def enter(config: Config) -> Config:
    """Be where a container of ``config`` can be made: its configuration as that namespace numbers ids.

    For root, and for whoever is in a user namespace already, that is as it was given. An ordinary user's command
    makes one and starts itself again in there. Only then may its root look at the container's first process, which
    hides until its execve(2) (ptrace(2)); and that process executes a file which nobody in the container can write
    to, though it be the user's own interpreter (see `readonly`).

    Raises UsageError for what an ordinary user can't ask for, LabError where the kernel allows no user namespace.
    """
    if is_outside():
        from lab.host import entering
        from lab.runtime import readonly

        if not any(space.type == "user" for space in config.linux.namespaces):
            raise UsageError(
                "config.json: linux.namespaces: a user namespace is missing, which takes root", hint=SPEC
            )
        if any(space.type == "user" and space.path for space in config.linux.namespaces):
            raise UsageError(
                "config.json: linux.namespaces: a user namespace that is given by path can't be joined without root",
                hint="leave out its path",
            )
        ids = entering.ids_of(ownspace.user_id(), ownspace.group_id(), most=MOST_IDS)
        translated(config, _table(ids.user, ids.users), _table(ids.group, ids.groups))
        entering.become_root(_needed(config, ids), marked=False)
        os.environ[ENTERED] = "1"
        readonly.start_again(["-IS", *sys.argv], anew=True)
    if ENTERED not in os.environ or not ownspace.here():
        return config
    return translated(config, ownspace.table(), ownspace.read_table("gid_map"))


def without_group(state: State) -> bool:
    """Whether an ordinary user has been given no control group, by which whatever runs in a container is found."""
    return ownspace.ordinary_user() > 0 and not state.its_group().places


def go_in(verb: str, entry: Entry) -> None:
    """An ordinary user's `exec`, and a verb that ends with hooks, go to where the container was made. Where it has
    ended there is nothing to be joined, and nobody but the user is needed.

    Raises LabError; what there is to complain of otherwise, the verb finds.
    """
    from lab.host import entering

    hook = {"start": "poststart", "delete": "poststop"}.get(verb, "")
    if not is_outside() or (hook and not entry.hooks(hook)):
        return
    state = None
    with suppress(LabError):
        state = entry.read()
    if state is not None and state.lives():
        entering.join(state.pid)
    elif verb == "delete":
        entering.become_root(entering.Ids(user=ownspace.user_id(), group=ownspace.group_id()))


def translated(config: Config, users: Iterable[_Part], groups: Iterable[_Part]) -> Config:
    """``config`` with the host's ids as a namespace of these tables numbers them. Raises UsageError for an id that is
    in none of its parts.
    """
    users, groups = _merged(users), _merged(groups)
    linux = config.linux
    return replace(
        config,
        linux=replace(
            linux,
            uid_mappings=_inside("linux.uidMappings", linux.uid_mappings, users),
            gid_mappings=_inside("linux.gidMappings", linux.gid_mappings, groups),
        ),
        mounts=tuple(
            replace(
                mount,
                uid_mappings=_inside(f"mounts[{number}].uidMappings", mount.uid_mappings, users),
                gid_mappings=_inside(f"mounts[{number}].gidMappings", mount.gid_mappings, groups),
            )
            for number, mount in enumerate(config.mounts)
        ),
    )


def _needed(config: Config, ids: Ids) -> Ids:
    """The user's own id alone, where the configuration names no other: that takes no newuidmap(1)."""
    from lab.host.entering import Ids

    linux = config.linux
    own = all(
        (each.host_id, each.size) == (one, 1)
        for one, mappings in ((ids.user, linux.uid_mappings), (ids.group, linux.gid_mappings))
        for each in mappings
    )
    if own and not any(mount.uid_mappings or mount.gid_mappings for mount in config.mounts):
        return Ids(user=ids.user, group=ids.group)
    if ids.is_alone:
        raise LabError("config.json maps ids, of which you have been given none", hint="newuidmap(1), subuid(5)")
    return ids


_Part = tuple[int, int, int]
"""The first id inside, the first on the host, how many."""


def _table(own: int, given: tuple[int, int]) -> list[_Part]:
    return [(0, own, 1), *([(1, *given)] if given[1] else [])]


def _merged(parts: Iterable[_Part]) -> list[_Part]:
    """What follows one another inside and outside, as one part."""
    found: list[_Part] = []
    for inside, outside, count in sorted(parts):
        if found and (found[-1][0] + found[-1][2], found[-1][1] + found[-1][2]) == (inside, outside):
            found[-1] = (found[-1][0], found[-1][1], found[-1][2] + count)
        else:
            found.append((inside, outside, count))
    return found


def _inside(path: str, mappings: tuple[IdMapping, ...], parts: list[_Part]) -> tuple[IdMapping, ...]:
    return tuple(
        replace(each, host_id=_one(f"{path}[{number}]", each, parts)) for number, each in enumerate(mappings)
    )


def _one(path: str, mapping: IdMapping, parts: list[_Part]) -> int:
    for inside, outside, count in parts:
        if outside <= mapping.host_id and mapping.host_id + mapping.size <= outside + count:
            return inside + mapping.host_id - outside
    last = mapping.host_id + mapping.size - 1
    wanted = f"{mapping.host_id}" if mapping.size == 1 else f"{mapping.host_id} to {last}"
    yours = ", ".join(
        f"{outside} to {outside + count - 1}" if count > 1 else f"{outside}" for _, outside, count in parts
    )
    raise UsageError(f"config.json: {path}: {wanted}: yours are {yours}", hint="subuid(5) says how more are given")
