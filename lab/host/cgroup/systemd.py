"""Asking systemd for a control group: a scope, which is a unit made of processes that somebody else has started.

With ``Delegate=yes`` what is below the scope's own group is the asker's alone: neither a daemon-reload nor the end of
the session in which somebody typed `lab run -d` touches it. A scope ends with its last process, and systemd removes
what is left of it. Where in the tree it lies, and why, is said in `lab.host.cgroup.delegation`.

The program that asks is busctl, a part of systemd: it is there wherever it is needed, and a library would be imported
by every command on the hosts without systemd, too.

Sources: systemd's docs/CGROUP_DELEGATION.md and CONTROL_GROUP_INTERFACE.md, org.freedesktop.systemd1(5),
systemd.scope(5), busctl(1).
"""

from __future__ import annotations

import os
import time

from lab.errors import CommandError, LabError
from lab.host.cgroup import cgroupfs, mounted
from lab.host.cgroup.delegation import LAUNCHER, ROOT_SLICE, here, scope_of
from lab.host.cgroup.group import Group
from lab.host.cgroup.mounted import APPLICATIONS
from lab.host.identity import ownspace
from lab.shims import suppress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

MANAGER = ("org.freedesktop.systemd1", "/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager")
BUS, USERS_BUS = "DBUS_SYSTEM_BUS_ADDRESS", "DBUS_SESSION_BUS_ADDRESS"
THE_BUS = "unix:path=/run/dbus/system_bus_socket"  # the D-Bus specification's, where nobody says otherwise
NO_BUS = "unix:path=/dev/null"
"""An address at which nobody answers."""
UNLIMITED = str((1 << 64) - 1)
CALL_SECONDS = 30.0
START_SECONDS = 30.0
GRACE_SECONDS = 2.0
END_SECONDS = 10.0
BEHIND_SECONDS = 60.0
"""How much longer a scope is waited for in which nobody lives: systemd is behind with its work then."""

_address = os.environ.get(BUS, THE_BUS)
if _address == NO_BUS:  # of a lab that has started this one
    _address = THE_BUS


def start_scope(
    name: str,
    pids: Sequence[int],
    description: str,
    *,
    parent: str = "",
    properties: Sequence[tuple[str, ...]] = (),
) -> None:
    """Have systemd make the scope ``name`` of the processes ``pids``, delegated, without a limit of its own, in the
    slice ``parent``, by default the one that stands for the root. They are in its group on return. ``properties`` are
    more of them, as busctl(1) has a(sv).

    Raises LabError when systemd refuses, or does not get it done in time.
    """
    properties = [
        *properties,
        ("PIDs", "au", str(len(pids)), *map(str, pids)),
        ("Slice", "s", parent or (APPLICATIONS if ownspace.here() else ROOT_SLICE)),
        ("Description", "s", description),
        ("Delegate", "b", "true"),
        ("CollectMode", "s", "inactive-or-failed"),  # nothing of it stays, however it ended
        ("TasksMax", "t", UNLIMITED),
    ]
    words = [word for one in properties for word in one]
    _call("StartTransientUnit", "ssa(sv)a(sa(sv))", name, "fail", str(len(properties)), *words, "0")
    deadline = time.monotonic() + START_SECONDS
    while not all(holds(name, pid) for pid in pids):
        if time.monotonic() > deadline:
            raise LabError(
                f"systemd did not start {name} within {START_SECONDS:g} s",
                hint="systemctl --user list-jobs" if ownspace.here() else "systemctl list-jobs",
            )
        time.sleep(0.001)


def attach(name: str, subgroup: str, pid: int) -> None:
    """Have systemd move a process into a group of a scope that runs. Raises LabError."""
    _call("AttachProcessesToUnit", "ssau", name, f"/{subgroup}", "1", str(pid))


def holds(name: str, pid: int) -> bool:
    """Whether the process is in that scope."""
    return f"/{name}/" in f"/{_group_of_process(pid)}/"


def ends_within(path: str, timeout_seconds: float) -> bool:
    """Whether a scope's group is gone, or goes in time: systemd removes it after its last process has ended."""
    deadline, pause = time.monotonic() + timeout_seconds, 0.001
    while os.path.isdir(f"{mounted.host().unified}/{path}"):
        if time.monotonic() > deadline:
            return False
        time.sleep(pause)
        pause = min(pause * 2, 0.05)
    return True


def await_end(path: str) -> None:
    """Wait until a scope whose last process has ended, or is about to, is gone. Raises LabError when it stays.

    systemd can miss that a group became empty (its issue 20198: while it reloads), and then keeps the scope until it
    is stopped; and it can forget a scope whose group it could not remove (its issue 36781). So one in which nobody
    lives is stopped, and of one that systemd does not know the groups are removed here.
    """
    if ends_within(path, END_SECONDS):
        return
    name, living = os.path.basename(path), Group(path).processes()
    if not living:
        try:
            _call("StopUnit", "ss", name, "replace")
        except CommandError as error:
            if "not loaded" not in f"{error} {error.detail}":
                raise
            with suppress(OSError):  # it is said below
                cgroupfs.remove_tree(f"{mounted.host().unified}/{path}", time.monotonic() + END_SECONDS)
        if ends_within(path, BEHIND_SECONDS):
            return
        living = Group(path).processes()
    shown = ", ".join(map(str, sorted(living))) or "none"
    with suppress(OSError):
        if not living and "populated 1" in cgroupfs.read(f"{mounted.host().unified}/{path}/cgroup.events"):
            shown += ", though its cgroup.events says populated"
    remedy = f"systemctl{' --user' if ownspace.here() else ''} stop {name}"
    raise LabError(f"{name} is left; living processes in it: {shown}", hint=remedy)


def keep_off_the_bus() -> None:
    """Let no library in this process find the system's bus from now on. The calls of this module still do."""
    os.environ[BUS] = NO_BUS


def _call(method: str, signature: str, *arguments: str) -> None:
    """One call of systemd's manager. What follows ``--`` is no option, whatever it begins with."""
    from lab.host.command import run  # for those who do call

    words = ["busctl", "--quiet", "--", "call", *MANAGER, method, signature, *arguments]
    if ownspace.here():
        words.insert(1, "--user")
        address = {USERS_BUS: f"unix:path=/{mounted.users_bus()}"}
        run(words, timeout_seconds=CALL_SECONDS, environment=address, hint="systemctl --user status dbus.socket")
    else:
        run(words, timeout_seconds=CALL_SECONDS, environment={BUS: _address}, hint="systemctl status dbus.socket")


def _group_of_process(pid: int) -> str:
    """Its group in the v2 tree, relative to the root; "" when it has ended."""
    with suppress(OSError), open(f"/proc/{pid}/cgroup") as file:
        for line in file:
            if line.startswith("0::"):
                return line.removeprefix("0::").strip().strip("/")
    return ""


class Scope:
    """The unit of one session of lab's."""

    def __init__(self, name: str) -> None:
        self.name = name

    @classmethod
    def of(cls, session: str) -> Scope:
        return cls(scope_of(session))

    @property
    def directory(self) -> str:
        return f"{mounted.host().unified}/{self.name}"

    def start(self, pids: Sequence[int], description: str) -> None:
        """Make it of these processes, in a group of their own below it. Raises LabError."""
        # As heavy as one ordinary task per CPU: see `cgroupfs.weigh_as_many`.
        weight = ("CPUWeight", "t", str(min(100 * (os.cpu_count() or 1), 10_000)))
        start_scope(self.name, pids, description, properties=[weight])
        try:
            os.mkdir(f"{self.directory}/{LAUNCHER}")
            for pid in pids:
                cgroupfs.write(f"{self.directory}/{LAUNCHER}/cgroup.procs", str(pid))
        except OSError as error:
            raise LabError(f"the processes of {self.name} can't be placed: {error}") from error

    def enter(self) -> None:
        """Have this process, and what it will start, in it, if it is there and this isn't so already."""
        if os.path.isdir(f"{self.directory}/{LAUNCHER}") and not holds(self.name, os.getpid()):
            attach(self.name, LAUNCHER, os.getpid())

    def open_to_children(self) -> None:
        """Where what this process starts could not enter a group of it otherwise, enter it. An ordinary user's
        process may not leave a login's group for it, since that is root's (cgroups(7), "Delegation containment").
        """
        if ownspace.here() and here():
            self.enter()

    def exists(self) -> bool:
        """Whether it is there, for others than those in it: it ends with them."""
        return os.path.isdir(self.directory) and not holds(self.name, os.getpid())

    def remove(self) -> None:
        """Once its instances have ended: wait until systemd has removed it. A small process that does not end by
        itself is killed. Raises LabError.
        """
        if not ends_within(self.name, GRACE_SECONDS):
            Group(f"{self.name}/{LAUNCHER}").kill(END_SECONDS)
        await_end(self.name)
