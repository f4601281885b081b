"""The cgroup file systems of this host, as cheaply as a process that lives for milliseconds wants to know them.

`lab.host.cgroup.hierarchy` says the same in pathlib's terms. Source: cgroups(7), proc_pid_mountinfo(5).
"""

from __future__ import annotations

import os

from lab.host.identity import ownspace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

KNOWN_V1 = frozenset(
    {"blkio", "cpu", "cpuacct", "cpuset", "devices", "freezer", "hugetlb", "memory", "misc", "net_cls"}
    | {"net_prio", "perf_event", "pids", "rdma"}
)

JOINED = ("memory", "cpu", "cpuacct", "pids")
"""The v1 controllers that limit or account for every group; freezer and devices only without a v2 tree."""

JOINED_WITHOUT_V2 = ("freezer", "devices")


USERS_SYSTEMD = "user.slice/user-{0}.slice/user@{0}.service"
"""Where the groups of an ordinary user's systemd begin (user@.service(5))."""
APPLICATIONS = "app.slice"
"""The slice below it in which programs lie that the user has started (systemd.special(7))."""


class Mounted:
    """The mount points: ``v1`` by controller name, ``unified`` for cgroup2, "" where there is none."""

    def __init__(self, v1: Mapping[str, str], unified: str, unified_controllers: Iterable[str]) -> None:
        self.v1 = dict(v1)
        self.unified = unified
        self.unified_controllers = frozenset(unified_controllers)

    @classmethod
    def detect(cls, root: str = "/") -> Mounted:
        """Read ``root``/proc/self/mountinfo; mount points are taken below ``root``.

        To an ordinary user the part that was delegated is all there is: see `delegated`.
        """
        v1: dict[str, str] = {}
        unified = ""
        for place, kind, options in mounts(root):
            if kind == "cgroup2" and not unified:
                unified = place
            elif kind == "cgroup":
                for controller in options.split(","):
                    if controller in KNOWN_V1:
                        v1.setdefault(controller, place)
        offered: list[str] = []
        if unified:
            with open(f"{unified}/cgroup.controllers") as file:
                offered = file.read().split()
        found = cls(v1, unified, offered)
        return found.delegated(root) if ownspace.ordinary_user() > 0 else found

    def delegated(self, root: str = "/") -> Mounted:
        """The part that is an ordinary user's own: in each hierarchy this process's group, or the topmost above it
        that the user may write to, in the place of the root; hierarchies without one are left out.

        Of a v2 tree that has the controllers it is the slice in which the user's own systemd makes scopes, where it
        can be asked; else nothing, since a group in which the user's programs are gives no controllers to groups
        below it (cgroups(7), "no internal processes").
        """
        if self.is_v2:
            service = f"{self.unified}/{USERS_SYSTEMD.format(ownspace.ordinary_user())}"
            if not (os.path.exists(f"{root.rstrip('/')}/{users_bus()}") and os.access(service, os.W_OK)):
                return Mounted({}, "", ())
            with open(f"{service}/cgroup.controllers") as file:
                return Mounted({}, f"{service}/{APPLICATIONS}", file.read().split())
        own = groups_of_this_process(root)
        v1 = {name: _topmost_writable(place, own.get(name, "")) for name, place in self.v1.items()}
        unified = _topmost_writable(self.unified, own.get("", "")) if self.unified else ""
        offered = self.unified_controllers if unified else ()
        return Mounted({name: place for name, place in v1.items() if place}, unified, offered)

    @property
    def is_v2(self) -> bool:
        """Whether the v2 tree has the controllers. In hybrid mode it has none, yet it kills and freezes."""
        return bool(self.unified) and not self.v1

    def on_v2(self, controller: str) -> bool:
        """Whether ``controller`` speaks v2: in hybrid mode the v2 tree has those that v1 left to it."""
        return self.is_v2 or (controller not in self.v1 and controller in self.unified_controllers)

    def mount_of(self, controller: str) -> str:
        """Where ``controller`` lives, "" when this host doesn't offer it."""
        if controller in self.v1:
            return self.v1[controller]
        return self.unified if controller in self.unified_controllers else ""

    def places(self, controllers: Iterable[str]) -> tuple[str, ...]:
        """The mount points of ``controllers``, each once, with the v2 tree at the end if there is one."""
        found = [self.v1[name] for name in controllers if name in self.v1]
        return tuple(dict.fromkeys([*found, self.unified] if self.unified else found))

    def joined(self) -> tuple[str, ...]:
        """The mount points under which every group gets a directory."""
        return self.places(JOINED if self.unified else JOINED + JOINED_WITHOUT_V2)


def mounts(root: str = "/") -> Iterator[tuple[str, str, str]]:
    """Every mount by its place below ``root``, file system type and super block options."""
    below = root.rstrip("/")
    with open(f"{below}/proc/self/mountinfo") as file:
        lines = file.read().splitlines()
    for line in lines:
        place, _, source = line.partition(" - ")
        kind, _, options = source.split(" ", 2)
        yield below + place.split(" ")[4].replace("\\040", " "), kind, options


def groups_of_this_process(root: str = "/") -> dict[str, str]:
    """Where it is in each hierarchy, by v1 controller and "" for the v2 tree, without a slash at either end."""
    found: dict[str, str] = {}
    with open(f"{root.rstrip('/')}/proc/self/cgroup") as file:
        for line in file:
            _, controllers, path = line.rstrip("\n").split(":", 2)
            found |= dict.fromkeys(controllers.split(","), path.strip("/"))
    return found


def _topmost_writable(place: str, path: str) -> str:
    """The first group from ``place`` down to ``path`` in which groups can be made and processes be put, or ""."""
    names = path.split("/") if path else []
    for count in range(len(names) + 1):
        group = "/".join([place, *names[:count]])
        if all(os.access(one, os.W_OK) for one in (group, f"{group}/cgroup.procs")):
            return group
    return ""


def users_bus() -> str:
    """Where an ordinary user's systemd can be asked, from the root on: in the folder that pam_systemd(8) makes."""
    return f"run/user/{ownspace.ordinary_user()}/bus"


def forget() -> None:
    """See `lab.host.cgroup.hierarchy.forget`."""
    _host.clear()


_host: list[Mounted] = []


def host() -> Mounted:
    """This host's, read once per process."""
    if not _host:
        _host.append(Mounted.detect())
    return _host[0]
