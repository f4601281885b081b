"""A container's unit, where systemd owns the control groups: a scope in the slice that the caller names.

    --systemd-cgroup, "slice:prefix:name"   the scope prefix-name.scope in that slice, as Docker and Podman ask for it
    --systemd-cgroup, no cgroupsPath        lab-oci-ID.scope in system.slice
    neither                                 the same, on a host whose groups are systemd's
    the same of an ordinary user            in app.slice of the user's own systemd, and in no other
    a path                                  that path: who names one has been delegated what is above it

The container's own group is ``container`` in the scope, as crun has it: systemd writes into the scope's, and sets it
back to what it knows of at a daemon-reload; into what is below it, with ``Delegate=yes``, it never does.

A scope is made of processes, and the limits come before the container's first one. A `Holder` is there until then.

Source: runc's docs/systemd.md, systemd.unit(5) for names, docs/CGROUP_DELEGATION.md.
"""

from __future__ import annotations

import os

from lab.errors import LabError, UsageError
from lab.host.cgroup import cgroupfs, delegation, mounted
from lab.host.cgroup.group import Group
from lab.host.identity import ownspace
from lab.shims import signal, suppress

CONTAINER, HOLDER = "container", "holder"
SYSTEM_SLICE = "system.slice"
LONGEST_NAME = 255
SIGNS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789:-_.\\@")


class Unit:
    """The scope of one container. Naming it makes nothing."""

    def __init__(self, parent: str, name: str) -> None:
        """Raises UsageError for names that systemd doesn't take."""
        if not SIGNS.issuperset(name) or len(name) > LONGEST_NAME:
            raise UsageError(
                f"linux.cgroupsPath: {name!r} is no unit's name", hint="letters, digits and : - _ . \\ @"
            )
        try:
            above = _group_of(parent)
        except ValueError as error:
            raise UsageError(f"linux.cgroupsPath: {error}") from error
        self.parent = parent
        self.name = name
        self.path = f"{above}/{name}".lstrip("/")  # of its group

    @classmethod
    def wanted(cls, cgroups_path: str, identity: str, *, by_systemd: bool) -> Unit | None:
        """What linux.cgroupsPath means, None for a path in the cgroup file system. Raises UsageError."""
        is_unit = cgroups_path.count(":") == 2 and not cgroups_path.startswith("/")
        if is_unit and not by_systemd:
            raise UsageError(f"linux.cgroupsPath: {cgroups_path} is a systemd unit", hint="add --systemd-cgroup")
        if is_unit:
            parent, prefix, name = cgroups_path.split(":")
            return cls(parent or usual_slice(), f"{prefix}-{name}.scope" if prefix else f"{name}.scope")
        if cgroups_path and by_systemd:
            raise UsageError(
                f"linux.cgroupsPath: {cgroups_path} is not slice:prefix:name, as --systemd-cgroup wants it"
            )
        if not cgroups_path and (by_systemd or delegation.here()):
            return cls(usual_slice(), f"lab-oci-{identity.replace('+', chr(92) + 'x2b')}.scope")
        return None

    @property
    def group(self) -> Group:
        """The container's."""
        return Group(f"{self.path}/{CONTAINER}")

    def start(self, identity: str) -> Holder:
        """Have systemd make it. Raises LabError, also when there is one of that name."""
        from lab.host.cgroup import systemd

        systemd.ends_within(self.path, systemd.GRACE_SECONDS)  # a container of this name has just been deleted
        holder = Holder()
        try:
            properties = [("DefaultDependencies", "b", "false")]  # at shutdown its manager is the one to stop it
            systemd.start_scope(
                self.name, [holder.pid], f"container {identity}", parent=self.parent, properties=properties
            )
            holder.enter(Group(f"{self.path}/{HOLDER}"))
        except BaseException:
            holder.end()
            raise
        return holder


def usual_slice() -> str:
    """Where a container goes whose configuration names none."""
    return mounted.APPLICATIONS if ownspace.ordinary_user() > 0 else SYSTEM_SLICE


def _group_of(parent: str) -> str:
    """Below the root, which is app.slice for an ordinary user (`lab.host.cgroup.mounted`). Raises ValueError."""
    if ownspace.ordinary_user() <= 0:
        return delegation.group_of_slice(parent)
    if parent != mounted.APPLICATIONS:
        raise ValueError(f"{parent} is not {mounted.APPLICATIONS}, in which an ordinary user's containers lie")
    return ""


class Holder:
    """A process that waits. It ends with this one, however that ends."""

    def __init__(self) -> None:
        waiting, self._end = os.pipe2(os.O_CLOEXEC)
        self._group: Group | None = None
        self.pid = os.fork()
        if self.pid == 0:
            try:
                os.close(self._end)
                os.read(waiting, 1)
            finally:
                os._exit(0)
        os.close(waiting)

    def enter(self, group: Group) -> None:
        """Make ``group`` in the scope, beside the container's, and go there: above a group no process may be."""
        try:
            for place in group.host.places(()):
                os.mkdir(f"{place}/{group.path}")
                group.places = (place,)
                cgroupfs.write(f"{place}/{group.path}/cgroup.procs", str(self.pid))
        except OSError as error:
            raise LabError(f"cgroup {group.path} can't be made: {error}") from error
        self._group = group

    def end(self) -> None:
        """Idempotent."""
        if self.pid:
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
            os.close(self._end)
            self.pid = 0
        if self._group is not None:
            self._group.remove()
            self._group = None


def await_end(group: Group) -> None:
    """Once nothing of a container is left: wait until its scope is gone, if it had one. Raises LabError."""
    scope, _, last = group.path.rpartition("/")
    if last == CONTAINER and delegation.units_of(group.path):
        from lab.host.cgroup import systemd

        systemd.await_end(scope)
