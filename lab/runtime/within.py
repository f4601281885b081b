"""Children that are born in namespaces which the launcher is not in: by path, or of a process (setns(2)).

Standard library only; see `lab.runtime.spawner.spawner`.
"""

from __future__ import annotations

import os

from lab.host import syscalls
from lab.runtime.channel import Channel, ChannelClosed
from lab.runtime.plan import Plan, Step, StepFailed
from lab.shims import signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

OF_CHILDREN = {syscalls.CLONE_NEWPID: "pid", syscalls.CLONE_NEWTIME: "time"}


class ChildrenIn:
    """Processes forked within are born in these namespaces, and with these offsets of their clocks.

    A process can't change its own pid namespace, nor can a clock be offset once a process goes by it: what
    setns(2) and unshare(2) change is where children will be (pid_namespaces(7), time_namespaces(7)).
    """

    def __init__(self, namespaces: Sequence[Sequence[Any]], time_offsets: str | None = None) -> None:
        """Each of ``namespaces`` is a path or a pidfd, and a CLONE_NEW flag."""
        self._namespaces = namespaces
        self._time_offsets = time_offsets
        self._own: list[tuple[int, int]] = []

    def __enter__(self) -> None:
        try:
            for where, flag in self._namespaces:
                self._remember(flag)
                enter(where, flag)
            if self._time_offsets is not None:
                self._remember(syscalls.CLONE_NEWTIME)
                syscalls.unshare(syscalls.CLONE_NEWTIME)
                offset_clocks(self._time_offsets)
        except BaseException:
            self.__exit__()
            raise

    def _remember(self, flag: int) -> None:
        self._own.append((os.open(f"/proc/self/ns/{OF_CHILDREN[flag]}", os.O_RDONLY | os.O_CLOEXEC), flag))

    def __exit__(self, *_error: object) -> None:
        for descriptor, flag in self._own:
            syscalls.setns(descriptor, flag)
            os.close(descriptor)


def offset_clocks(text: str) -> None:
    """Of the time namespace that children will be in; all in one write(2)."""
    if text:
        with open("/proc/self/timens_offsets", "w") as file:
            file.write(text)


def enter(where: str | int, flag: int) -> None:
    """setns(2) into the namespace at a path, or into that of a pidfd's process."""
    if isinstance(where, int):
        syscalls.setns(where, flag)
        return
    descriptor = os.open(where, os.O_RDONLY | os.O_CLOEXEC)
    try:
        syscalls.setns(descriptor, flag)
    finally:
        os.close(descriptor)


def outside(plan: Plan) -> list[list[Any]]:
    """Namespaces to be in before the others are made, a given user namespace the last of them.

    A process in a user namespace, new or given, has no power over namespaces that are not its own, and can't join
    them any more; nor can a process that has joined one return. So a go-between joins these, see `clone_within`.
    """
    return [*plan.joined_first, *([[plan.users, syscalls.CLONE_NEWUSER]] if plan.users else [])]


def clone(namespaces: int, cgroup: str) -> tuple[int, int]:
    """A child born in its v2 group, where there is one: moving it there would wait for an RCU grace period.

    Its pid and its pidfd, which come together or not at all; 0 and -1 in the child.
    """
    ends_with = 0 if namespaces & syscalls.CLONE_PARENT else signal.SIGCHLD  # the parent's wish counts already
    if not cgroup:
        return syscalls.clone_pidfd(namespaces | ends_with)
    directory = os.open(cgroup, syscalls.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return syscalls.clone3(namespaces, ends_with, directory)
    finally:
        os.close(directory)


def clone_within(given: Sequence[Sequence[Any]], namespaces: int, cgroup: str) -> tuple[int, int]:
    """`clone` inside the namespaces ``given``: pid, 0 in the child; pidfd. Raises OSError, StepFailed.

    A process that enters a user namespace can't return: a go-between does, and the child has its parent for its own
    (CLONE_PARENT). New namespaces belong to the user namespace that they are made in or together with.
    """
    ours, theirs = Channel.pair()
    between = syscalls.clone(signal.SIGCHLD)
    if between == 0:
        ours.close()
        if go_between(theirs, given, namespaces, cgroup):
            os._exit(0)
        theirs.close()
        return 0, -1
    theirs.close()
    try:
        message, descriptors = ours.receive()
    except ChannelClosed:
        raise OSError(0, "the go-between died") from None
    finally:
        ours.close()
        os.waitpid(between, 0)
    if not descriptors:
        raise StepFailed(str(message["step"]), int(str(message["number"])), str(message["text"]))
    return pid_of(descriptors[0]), descriptors[0]


def go_between(channel: Channel, given: Sequence[Sequence[Any]], namespaces: int, cgroup: str) -> bool:
    """True in the go-between, when it has told what became of it; False in the child."""
    step, about = Step.JOIN, ""
    try:
        for where, flag in given:
            about = f"{where}: "
            enter(where, flag)
        step, about = Step.CLONE, ""
        pid, pidfd = clone(namespaces | syscalls.CLONE_PARENT, cgroup)
    except OSError as error:
        channel.send("FAILED", step=step, number=error.errno or 0, text=f"{about}{error.strerror}")
        return True
    if pid != 0:
        channel.send("BORN", descriptors=[pidfd])
    return pid != 0


def pid_of(pidfd: int) -> int:
    """As our own pid namespace numbers it (pidfd_open(2))."""
    with open(f"/proc/self/fdinfo/{pidfd}") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("Pid:"))
