"""A control group as paths and files: made, entered, frozen, killed, removed (cgroups(7)).

It is one relative path that exists below several hierarchies. Its limits are written by
`lab.runtime.cgroup.resources`, and what it uses is read by `lab.host.cgroup.accounting`.
Imports little: every verb of `lab-oci` needs it.
"""

from __future__ import annotations

import errno
import os
import time

from lab.errors import GroupGone, LabError
from lab.host.cgroup import cgroupfs, delegation, mounted
from lab.host.identity import ownspace
from lab.shims import signal, suppress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from lab.host.cgroup.mounted import Mounted

DOCTOR = "lab doctor shows which controllers this host offers"
OWN = ("lab/", "lab-")
"""How the path of a group of lab's own begins: see `lab.host.cgroup.delegation`."""
ABSENT = (errno.ENOENT, errno.ENODEV, errno.EOPNOTSUPP)  # ENODEV: removed while its file was open (kernfs)


class Group:
    """One group. Naming it makes nothing; thread-safe as far as the kernel's files are."""

    def __init__(self, path: str, host: Mounted | None = None, places: Iterable[str] | None = None) -> None:
        """``path`` is relative to the mount points ``places``: by default all in which it exists.

        Raises ValueError for a path that does not stay below them.
        """
        self.path = path.strip("/")
        if not self.path or path.startswith("/") or not {"..", ".", ""}.isdisjoint(self.path.split("/")):
            raise ValueError(f"a group's path is relative and stays below its root: {path}")
        self.host = host or mounted.host()
        if places is None:
            everywhere = self.host.places(self.host.v1)
            places = [place for place in everywhere if os.path.isdir(f"{place}/{self.path}")]
        self.places = tuple(places)
        self._first = -1
        self._company: tuple[str, ...] = ()
        self._beside: tuple[int, ...] = ()

    def __repr__(self) -> str:
        return f"Group({self.path!r})"

    # Where it is

    @property
    def directories(self) -> tuple[str, ...]:
        """The group's directory in each hierarchy that it is in."""
        return tuple(f"{place}/{self.path}" for place in self.places)

    @property
    def unified(self) -> str:
        """Its directory in the v2 tree, present in v2 and hybrid mode; "" where there is none."""
        return f"{self.host.unified}/{self.path}" if self.host.unified in self.places and self.host.unified else ""

    @property
    def tasks(self) -> list[str]:
        """The v1 files into which a thread writes "0" to move itself into the group."""
        return [f"{place}/{self.path}/tasks" for place in self.places if place != self.host.unified]

    @property
    def controllers(self) -> tuple[str, ...]:
        """The v1 controllers it is in."""
        return tuple(name for name, place in self.host.v1.items() if place in self.places)

    def exists(self) -> bool:
        """Whether any hierarchy still holds it."""
        return any(os.path.isdir(directory) for directory in self.directories)

    # Making and removing

    def make(self, controllers: Iterable[str] = ()) -> None:
        """Make the group and its parents in the hierarchies that every group is in, and in those of
        ``controllers``; an ordinary user to whom none was delegated has groups that are in none.

        Raises LabError; nothing is left behind then.
        """
        host = self.host
        usual = mounted.JOINED if host.unified else mounted.JOINED + mounted.JOINED_WITHOUT_V2
        wanted = [*usual, *controllers, *self._as_placed()]
        self.places = ()
        try:
            for place in host.places(wanted):
                ours = self.path.startswith(OWN)
                cgroupfs.make(place, self.path, delegate=place == host.unified and host.is_v2 and ours, weigh=ours)
                self.places += (place,)
                self._prepare(place, wanted)
        except OSError as error:
            for directory in self.directories:
                with suppress(OSError):
                    os.rmdir(directory)
            raise LabError(f"cgroup {self.path} can't be made: {error}", hint=_remedy(error)) from error
        if not self.places and not ownspace.here():
            raise LabError("no cgroup hierarchy is mounted", hint=DOCTOR)

    def _as_placed(self) -> tuple[str, ...]:
        """A v1 cpuset holds for the groups of its own hierarchy: where a session keeps its instances to some CPUs
        (`lab.experiment.placing`), their groups are in it. On v2 they are by themselves.
        """
        place = self.host.v1.get("cpuset")
        keeper = os.path.join(os.path.dirname(self.path), delegation.PLACEMENT)
        return ("cpuset",) if place and self.path.startswith(OWN) and os.path.isdir(f"{place}/{keeper}") else ()

    def join(self, controller: str) -> bool:
        """Be in the hierarchy of ``controller`` too, with all processes; False if this host hasn't got it."""
        place = self.host.mount_of(controller)
        if not place or (place in self.places and place != self.host.unified):
            return bool(place)
        if place not in self.places:
            cgroupfs.make(place, self.path, delegate=False, weigh=False)
            self.places += (place,)
        self._prepare(place, [controller])
        for pid in self.processes() if place != self.host.unified else ():
            with suppress(ProcessLookupError):
                cgroupfs.write(f"{place}/{self.path}/cgroup.procs", str(pid))
        return True

    def _prepare(self, place: str, controllers: Iterable[str]) -> None:
        """A controller has to be passed down on v2, and a v1 cpuset to be filled."""
        names = self.path.split("/")
        if place == self.host.v1.get("cpuset"):
            parent = place
            for name in names:
                above, parent = parent, f"{parent}/{name}"
                cgroupfs.fill_cpuset(parent, above)
        elif place == self.host.unified:
            self._have_passed_down([*cgroupfs.DELEGATED, *controllers])

    def _have_passed_down(self, controllers: Iterable[str]) -> None:
        """Let it have the v2 tree's ``controllers``. What no parent can give, a limit will say is missing."""
        known = [name for name in controllers if self.host.on_v2(name) and self.host.mount_of(name)]
        offered = list(dict.fromkeys(known))
        place, names = self.host.unified, self.path.split("/")
        if not offered or set(offered) <= set(cgroupfs.read(f"{place}/{self.path}/cgroup.controllers").split()):
            return
        for count in range(delegation.units_of(self.path), len(names)):
            with suppress(OSError):
                cgroupfs.pass_down("/".join([place, *names[:count]]), offered)

    def remove(self, timeout_seconds: float = 10.0, *, keep_parents: bool = True) -> None:
        """Remove the group and groups below it, and parents that became empty; verified. Idempotent.

        Its processes must be dead or dying: a zombie that nobody reaped yet does not matter, a living
        process makes this raise LabError after ``timeout_seconds``.
        """
        deadline = time.monotonic() + timeout_seconds
        for directory in self.directories:
            cgroupfs.remove_tree(directory, deadline)
        if not keep_parents:
            self.prune_parents()

    def prune_parents(self) -> None:
        """Remove the group's parents, as far as they are empty and not systemd's."""
        names = self.path.split("/")
        for place in self.places:
            for count in range(len(names) - 1, delegation.units_of(self.path), -1):
                try:
                    os.rmdir("/".join([place, *names[:count]]))
                except OSError:
                    break  # still used by another instance or session, or gone already

    # Processes

    def add(self, pid: int) -> None:
        """Move the process ``pid`` with all its threads into the group."""
        for directory in self.directories:
            cgroupfs.write(f"{directory}/cgroup.procs", str(pid))

    def processes(self) -> set[int]:
        """The process ids in the group and below, without zombies and threads of the kernel: they hold nothing."""
        if self._first > 0 and not self.places:
            from lab.host.cgroup import descent  # for an ordinary user without groups

            families = map(descent.family, self._beside)
            return descent.company(self._first, self._company).union(*families)
        return cgroupfs.processes(self.directories)

    def living(self) -> set[int]:
        """The same. Raises GroupGone when it was followed, and its first process has ended."""
        found = self.processes()
        if self._first > 0 and not self.places and not found:
            raise GroupGone(f"nothing runs in {self.path}")
        return found

    def follow(self, first: int, company: Iterable[str] = (), beside: Iterable[int] = ()) -> None:
        """Where the group is in no hierarchy, its processes are from now on those that descend from ``first`` or from
        one ``beside`` it, and those that share ``company`` with it: namespaces made for it, as `descent.company` has
        them.
        """
        self._first, self._company, self._beside = first, tuple(company), tuple(beside)

    def freeze(self, timeout_seconds: float = 5.0) -> None:
        """Stop every process in the group where it stands; returns when all have stopped. Where one does not in time
        the others go on again, and LabError says so.
        """
        self._freezer("1", "FROZEN")
        try:
            cgroupfs.wait_until(self.is_frozen, timeout_seconds, f"cgroup {self.path} did not freeze")
        except BaseException:
            self.thaw()
            raise

    def thaw(self) -> None:
        """Let frozen processes go on."""
        self._freezer("0", "THAWED")

    def is_frozen(self) -> bool:
        """Whether all of it stands still."""
        if self.unified:
            return "frozen 1" in self.read("cgroup", "cgroup.events")
        return self.read("freezer", "freezer.state") == "FROZEN"

    def _freezer(self, v2_value: str, v1_value: str) -> None:
        if self.unified:
            cgroupfs.write(f"{self.unified}/cgroup.freeze", v2_value)
        else:
            cgroupfs.write(self.file("freezer", "freezer.state"), v1_value)

    def signal(self, number: int) -> None:
        """Send ``number`` to every process of the group. SIGKILL can't be outrun by forks: see `kill`."""
        for pid in self.processes():
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def kill(self, timeout_seconds: float = 10.0) -> None:
        """SIGKILL everything in the group and wait until it is dead; new forks don't escape.

        A frozen v1 process ignores even SIGKILL until thawed, so thaw comes first.
        """
        if not self.processes():
            return
        with suppress(OSError, LabError):
            self.thaw()
        deadline = time.monotonic() + timeout_seconds
        while pids := self._kill_once():
            cgroupfs.wait_dead(pids, max(0.0, deadline - time.monotonic()))
            if time.monotonic() > deadline:
                raise LabError(f"processes of cgroup {self.path} survive SIGKILL: {sorted(self.processes())}")

    def _kill_once(self) -> set[int]:
        pids = self.processes()
        if pids and self.unified and os.path.exists(f"{self.unified}/cgroup.kill"):
            cgroupfs.write(f"{self.unified}/cgroup.kill", "1")
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return pids

    # Files

    def file(self, controller: str, name: str) -> str:
        """The path of one of its files; "cgroup" is the v2 tree's own controller. Raises LabError without it."""
        mount = self.host.mount_of(controller) or (self.host.unified if controller == "cgroup" else "")
        if not mount and controller == "cpu" and self.host.is_v2:
            mount = self.host.unified  # cpu.stat exists without the controller
        if not mount:
            raise _lacks(controller)
        return f"{mount}/{self.path}/{name}"

    def has(self, controller: str, name: str) -> bool:
        """Whether the group has this file. For those that can only be written to; `look` is for the others."""
        return bool(self.host.mount_of(controller)) and os.path.exists(self.file(controller, name))

    def look(self, controller: str, name: str) -> str | None:
        """What one of the group's files says, without the last line feed; None where this host does not tell.

        The one rule for what is absent, on v1 and v2 alike. A controller that the host lacks or that this group is
        not under, a file that this kernel does not have or can't answer (psi=0): None. No group: GroupGone.
        """
        try:
            return cgroupfs.read(self.file(controller, name))
        except OSError as error:
            if error.errno not in ABSENT:
                raise
        except LabError:
            pass  # no such controller
        if self.host.joined() and not self.exists():
            raise GroupGone(f"there is no cgroup {self.path}")
        return None

    def read(self, controller: str, name: str) -> str:
        """As `look`, for a file that has to be there. Raises GroupGone, or LabError where this host does not tell."""
        found = self.look(controller, name)
        if found is None:
            if not self.host.mount_of(controller) and not (controller == "cgroup" and self.host.unified):
                raise _lacks(controller)
            raise LabError(f"cgroup {self.path} has no {name}", hint=DOCTOR)
        return found

    def write(self, controller: str, name: str, value: str) -> None:
        """Write to one of the group's files. Raises OSError, LabError."""
        cgroupfs.write(self.file(controller, name), value)


def _lacks(controller: str) -> LabError:
    if ownspace.ordinary_user() > 0:
        return LabError(f"you have been given no {controller} cgroup controller", hint="docs/rootless.md, Limits")
    return LabError(f"this host has no {controller} cgroup controller", hint=DOCTOR)


def _remedy(error: OSError) -> str:
    if error.errno not in (errno.EACCES, errno.EPERM):
        return ""
    from lab.host.identity import privilege

    return privilege.remedy()
