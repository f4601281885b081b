"""What ran in the user namespaces of an ordinary user's dead sessions, and was in no control group.

A container ends with its first process. Of a bare process whatever has left it could live on when all of lab's
processes have been killed at once: it is found by its user namespace, which nothing that was born in it can leave
upwards (user_namespaces(7)). Only from outside is that seen: a namespace beside it may not look.

The kernel gives the number of a namespace that has ended to another one, a browser's perhaps. So the number counts
only with the table of ids, which `lab.host.entering` makes in a way that nobody else does: the range of
subordinate ids in two parts, parted at random. A namespace without a range has no such mark, and what is left in it
is left.
"""

from __future__ import annotations

import fcntl
import os
import select
import signal
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

from lab.host import procstat
from lab.host.home import runtime_root
from lab.host.session import ledger
from lab.host.session.ledger import Resource, ResourceKind, is_of_this_boot, resources, stale_sessions
from lab.host.syscalls import NS_GET_PARENT

KILL_SECONDS = 10.0
MARKED = 3
"""Lines of a name: the number, root, and one part of a range; whatever has more is marked."""


def own_namespace() -> Resource:
    """This process's user namespace, as a session's ledger holds it."""
    return Resource(kind=ResourceKind.NAMESPACE, name=_namespace_of("self"))


def cleaner(session: Path) -> list[str]:
    """The command that ends what is left in its own namespace of a dead session, and then removes the session."""
    return [sys.executable, "-P", "-m", "lab.host.session.strays", str(session)]


def main(arguments: list[str]) -> int:
    """``python -m lab.host.session.strays FOLDER``: the launcher's last act in a namespace of lab's own, in which
    whatever no living session shares is the dead one's: a QEMU that was started a moment ago, and is in no ledger.
    """
    folder, own = Path(arguments[0]), own_namespace().name
    stale = stale_sessions()
    if folder in stale and own not in _living(stale):
        kept = _ancestors()
        deadline = time.monotonic() + KILL_SECONDS
        while (found := _within({own}, _seen_from_inside).keys() - kept) and time.monotonic() < deadline:
            for pid in found:
                _kill(pid, own, _seen_from_inside)
    return ledger.main(arguments)


def _ancestors() -> set[int]:
    """This process, and those that have started it."""
    found, pid = set(), os.getpid()
    while pid > 0 and pid not in found:
        found.add(pid)
        try:
            pid = int(procstat.fields(pid)[procstat.PARENT])
        except OSError:
            break
    return found


def end_strays() -> None:
    """SIGKILL everything in the marked namespaces of dead sessions that no living session shares."""
    stale = [folder for folder in stale_sessions() if is_of_this_boot(folder)]
    if not stale:
        return
    dead = {name for folder in stale for name in _namespaces(folder)}
    names = {name for name in dead - _living(stale) if len(name.splitlines()) > MARKED}
    deadline = time.monotonic() + KILL_SECONDS
    while (found := _within(names, _seen_from_outside)) and time.monotonic() < deadline:
        for pid, namespace in found.items():
            _kill(pid, namespace, _seen_from_outside)


def _living(stale: Sequence[Path]) -> set[str]:
    """The namespaces of all sessions but the dead."""
    return {name for folder in runtime_root().iterdir() if folder not in stale for name in _namespaces(folder)}


def _namespaces(session: Path) -> set[str]:
    return {one.name for one in resources(session) if one.kind is ResourceKind.NAMESPACE}


def _within(names: set[str], names_of: NamesOf) -> dict[int, str]:
    """The living processes in these namespaces, or in one below them, each with the one."""
    found = {}
    for place in Path("/proc").glob("[1-9]*") if names else ():
        with suppress(OSError):
            if own := names & names_of(place.name):
                found[int(place.name)] = own.pop()
    return found


def _seen_from_inside(pid: str) -> set[str]:
    """This process's own namespace's name, if process ``pid`` is in it or in one below it, as gVisor's Sentry is.
    Asked in it, so that its number is nobody else's. Raises OSError.
    """
    own = Path("/proc/self/ns/user").stat().st_ino
    return {own_namespace().name} if own in _numbers(pid) else set()


def _seen_from_outside(pid: str) -> set[str]:
    """The names that its namespace and those around it have, if their tables say the same. Raises OSError."""
    _, *table = _namespace_of(pid).split("\n")
    return {"\n".join([f"user:[{number}]", *table]) for number in _numbers(pid)}


def _numbers(pid: str) -> list[int]:
    """Of its user namespace, and of those around it as far as this process may see. Raises OSError."""
    found = []
    with ExitStack() as opened:
        namespace = os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
        with suppress(PermissionError):  # above this process's own
            while True:
                opened.callback(os.close, namespace)
                found.append(os.fstat(namespace).st_ino)
                namespace = fcntl.ioctl(namespace, NS_GET_PARENT)
    return found


NamesOf = Callable[[str], set[str]]


def _namespace_of(pid: str) -> str:
    """Its number, and a line for each part of its table of ids. Raises OSError."""
    place = Path("/proc") / pid
    table = (place / "uid_map").read_text()
    return "\n".join([str((place / "ns/user").readlink()), *(" ".join(line.split()) for line in table.splitlines())])


def _kill(pid: int, namespace: str, names_of: NamesOf) -> None:
    """Through a pidfd, once it is sure that the number is still that of a process there."""
    with suppress(OSError):
        descriptor = os.pidfd_open(pid)
        try:
            if namespace in names_of(str(pid)):
                signal.pidfd_send_signal(descriptor, signal.SIGKILL)
                select.select([descriptor], [], [], KILL_SECONDS)
        finally:
            os.close(descriptor)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
