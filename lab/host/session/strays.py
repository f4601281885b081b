"""What ran in the user namespaces of an ordinary user's dead sessions, and was in no control group.

A container ends with its first process. Of a bare process whatever has left it could live on when all of lab's
processes have been killed at once: it is found by its user namespace, which nothing that was born in it can leave
upwards (user_namespaces(7)). Only from outside is that seen: a namespace beside it may not look.
"""

from __future__ import annotations

import fcntl
import os
import select
import signal
import time
from contextlib import suppress
from pathlib import Path

from lab.host.home import runtime_root
from lab.host.session.ledger import Resource, ResourceKind, resources, stale_sessions

NS_GET_PARENT = 0xB702  # linux/nsfs.h
DEEPEST = 32  # levels of user namespaces in each other (user_namespaces(7))
KILL_SECONDS = 10.0


def own_namespace() -> Resource:
    """This process's user namespace, as a session's ledger holds it."""
    return Resource(kind=ResourceKind.NAMESPACE, name=str(Path("/proc/self/ns/user").readlink()))


def end_strays() -> None:
    """SIGKILL everything in the namespaces of dead sessions that no living session shares."""
    stale = stale_sessions()
    if not stale:
        return
    dead = {name for folder in stale for name in _namespaces(folder.name)}
    living = {name for folder in runtime_root().iterdir() if folder not in stale for name in _namespaces(folder.name)}
    deadline = time.monotonic() + KILL_SECONDS
    while (found := _within(dead - living)) and time.monotonic() < deadline:
        for pid, namespace in found.items():
            _kill(pid, namespace)


def _namespaces(session: str) -> set[str]:
    return {one.name for one in resources(runtime_root() / session) if one.kind is ResourceKind.NAMESPACE}


def _within(names: set[str]) -> dict[int, str]:
    """The living processes in these namespaces and in those below, each with its own."""
    found = {}
    for place in Path("/proc").glob("[1-9]*") if names else ():
        with suppress(OSError):
            chain = _chain(int(place.name))
            if names.intersection(chain):
                found[int(place.name)] = chain[0]
    return found


def _chain(pid: int) -> list[str]:
    """The user namespace of a process and those above it, as far as this process may see. Raises OSError."""
    found: list[str] = []
    descriptor = os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    try:
        while len(found) <= DEEPEST:
            found.append(f"user:[{os.fstat(descriptor).st_ino}]")
            try:
                above = fcntl.ioctl(descriptor, NS_GET_PARENT)
            except OSError:  # EPERM: it is our own or above
                break
            os.close(descriptor)
            descriptor = above
    finally:
        os.close(descriptor)
    return found


def _kill(pid: int, namespace: str) -> None:
    """Through a pidfd, once it is sure that the number is still that of a process there."""
    with suppress(OSError):
        descriptor = os.pidfd_open(pid)
        try:
            if _chain(pid)[0] == namespace:
                signal.pidfd_send_signal(descriptor, signal.SIGKILL)
                select.select([descriptor], [], [], KILL_SECONDS)
        finally:
            os.close(descriptor)
