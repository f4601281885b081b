"""Ending processes by their descent, for an ordinary user's lab that has been given no control group.

A process that is left by its parent becomes the child of the next subreaper above it, which the small process that
forks containers is then (PR_SET_CHILD_SUBREAPER(2const)): nothing of what it has started can get out from below it.
What forks while it is looked for is found by the next look. Imports little: the small process does.
"""

from __future__ import annotations

import os
import select
import time

from lab.errors import LabError
from lab.host import procstat, syscalls
from lab.host.identity import ownspace
from lab.shims import signal, suppress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

PAUSE_SECONDS = 0.002


class Gathering:
    """Meanwhile an ordinary user's process is the parent of whatever below it is left by its own, and at the end all
    of that is killed. For root, whose control groups hold everything, nothing happens.
    """

    def __enter__(self) -> None:
        if ownspace.here():
            syscalls.prctl(syscalls.PR_SET_CHILD_SUBREAPER, 1)

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if ownspace.here():
            with suppress(LabError, OSError):
                kill_below(os.getpid())


def below(pid: int) -> set[int]:
    """Every living process that descends from ``pid``."""
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdecimal():
            with suppress(OSError, IndexError):
                state, parent = procstat.fields(int(name))[:2]
                # Those below one that has ended but was not reaped have another parent by then.
                if state not in procstat.ENDED:
                    children.setdefault(int(parent), []).append(int(name))
    found: set[int] = set()
    waiting = [pid]
    while waiting:
        for child in children.get(waiting.pop(), ()):
            if child not in found:
                found.add(child)
                waiting.append(child)
    return found


def family(pid: int) -> set[int]:
    """The process ``pid``, unless it has ended, and what descends from it."""
    return set() if procstat.start_time(pid) is None else {pid} | below(pid)


def company(pid: int, namespaces: Iterable[str]) -> set[int]:
    """The same with what is in ``namespaces`` that were made for it, by their names in /proc/PID/ns: put there from
    outside, or left by its parent.
    """
    found = family(pid)
    for kind in namespaces if found else ():
        try:
            space = os.stat(f"/proc/{pid}/ns/{kind}")
        except (FileNotFoundError, ProcessLookupError):  # it has just ended
            return family(pid)
        for name in os.listdir("/proc"):
            with suppress(OSError):  # gone, or another user's
                if name.isdecimal() and os.path.samestat(os.stat(f"/proc/{name}/ns/{kind}"), space):
                    found |= family(int(name))
    return found


def end_orphans(known: set[int], timeout_seconds: float = 10.0) -> None:
    """SIGKILL an ordinary user's processes that have become children of this one, and what descends from them; those
    that it has ``known`` from their birth go on.
    """
    deadline = time.monotonic() + timeout_seconds
    while ownspace.here() and time.monotonic() < deadline:
        found = below(os.getpid())
        found -= known.union(*map(below, known))  # looked for later: what they bear meanwhile is not among the found
        if not found:
            return
        for pid in found:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(PAUSE_SECONDS)


def kill_below(pid: int, timeout_seconds: float = 10.0, *, pidfd: int = -1) -> None:
    """SIGKILL everything that descends from ``pid``, and wait until it is dead. Raises LabError when some survive.

    With its ``pidfd`` nothing happens once it has ended itself: its number may be another's then.
    """
    deadline = time.monotonic() + timeout_seconds
    while found := below(pid):
        if pidfd >= 0 and select.select([pidfd], [], [], 0)[0]:
            return
        for one in found:
            with suppress(ProcessLookupError):
                os.kill(one, signal.SIGKILL)
        if time.monotonic() > deadline:
            raise LabError(f"processes survive SIGKILL: {sorted(found)}")
        time.sleep(PAUSE_SECONDS)
