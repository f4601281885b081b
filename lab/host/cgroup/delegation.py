"""Which part of the tree of control groups is lab's, and under which name.

Where systemd is PID 1 and cgroup v2 is all there is, each group has one writer, and the root's is systemd: lab's
groups lie in scopes that systemd has delegated to it (`lab.host.cgroup.systemd`). Elsewhere they lie below ``lab``,
in every hierarchy.

    lab-1f2e3d4c.scope      a session of lab's, beside system.slice and user.slice
      launcher              its small process, and the supervisor of a detached instance
      instances             what lab makes there: a group per instance

A group with groups below it may hold no process itself (cgroups(7), "no internal processes"): hence ``launcher``. The
scope lies directly below the root, as lab's groups do elsewhere, so that what competes for the processors weighs the
same; a slice of lab's own would stay when its last scope is gone. An ordinary user's lies in app.slice of the user's
own systemd, which stands for the root then.

Imports little: every verb of `lab-oci` needs it.
"""

from __future__ import annotations

import os

from lab.host.cgroup import mounted
from lab.host.identity import ownspace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lab.host.cgroup.mounted import Mounted

BOOTED = "run/systemd/system"  # sd_booted(3)
BUS = "run/dbus/system_bus_socket"
LAUNCHER, INSTANCES = "launcher", "instances"
PLACEMENT = "placement"  # an empty group beside the instances' where they are kept to some CPUs
ROOT_SLICE = "-.slice"


def is_booted(root: str = "/") -> bool:
    """Whether systemd is this host's PID 1."""
    return os.path.isdir(f"{root.rstrip('/')}/{BOOTED}")


def delegates(root: str = "/", host: Mounted | None = None) -> bool:
    """Whether groups are to be asked of systemd: it is PID 1, it can be reached, and cgroup v2 is all there is. An
    ordinary user asks the systemd that is the user's own.
    """
    below, bus = root.rstrip("/"), mounted.users_bus() if ownspace.ordinary_user() > 0 else BUS
    return is_booted(root) and os.path.exists(f"{below}/{bus}") and (host or mounted.host()).is_v2


def forget() -> None:
    """See `lab.host.cgroup.hierarchy.forget`."""
    _here.clear()


_here: list[bool] = []


def here() -> bool:
    """The same of this host, found out once per process."""
    if not _here:
        _here.append(delegates())
    return _here[0]


def scope_of(session: str) -> str:
    """The unit of a session."""
    return f"lab-{session}.scope"


def group_of(session: str, name: str = "") -> str:
    """The path of a session's group, or of that of its instance ``name``, below the root of every hierarchy."""
    parent = f"{scope_of(session)}/{INSTANCES}" if here() else f"lab/{session}"
    return f"{parent}/{name}" if name else parent


def units_of(path: str) -> int:
    """How many of a path's names are systemd's to make, to remove and to write to: up to the last unit's own."""
    names = path.split("/")
    units = [number for number, name in enumerate(names, 1) if name.endswith(".scope")]
    return units[-1] if units and here() else 0


def group_of_slice(name: str) -> str:
    """Where a slice lies: a-b.slice in a.slice (systemd.slice(5)). Raises ValueError for what is no slice's name."""
    stem, dot, kind = name.rpartition(".")
    if name == ROOT_SLICE:
        return ""
    words = stem.split("-")
    if kind != "slice" or not dot or "/" in name or "" in words:
        raise ValueError(f"{name} is not the name of a slice")
    return "/".join(f"{'-'.join(words[:count])}.slice" for count in range(1, len(words) + 1))
