"""``kill``: a signal to a container's first process, or to all of them."""

from __future__ import annotations

import os

from lab.errors import LabError, UsageError
from lab.runtime.oci import rootless, store
from lab.runtime.oci.options import FLAG
from lab.shims import signal, suppress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lab.runtime.oci.main import Call

OPTIONS = {"kill": {"all a": FLAG}}
DEFAULT = "SIGTERM"
LARGEST = 64


def kill(call: Call) -> int:
    """``kill ID [SIGNAL]``. A container that has stopped is an error, unless ``--all``: its first process may have
    gone ahead of others, where it had no pid namespace of its own.
    """
    words = call.given.words
    if len(words) not in (1, 2):
        raise UsageError("kill takes a container id and a signal")
    number = signal_number(words[1] if len(words) > 1 else DEFAULT)
    entry = store.Entry(call.root, words[0])
    state = entry.read()
    status = entry.status(state)
    if call.given.flag("all"):
        kill_all(state, number)
        return 0
    if status not in (store.CREATED, store.RUNNING, store.PAUSED):
        raise LabError("container not running")
    if number == signal.SIGKILL and "pid" not in state.own and rootless.without_group(state):
        kill_all(state, number)  # nobody could tell afterwards whose the others were
        return 0
    send(state, number)
    if status == store.PAUSED and number == signal.SIGKILL:
        thaw(state.group)
    return 0


def send(state: store.State, number: int) -> None:
    """To the very process that is meant: by a pidfd, checked after it was opened. Raises LabError if it has ended."""
    try:
        pidfd = os.pidfd_open(state.pid)
    except ProcessLookupError:
        raise LabError("container not running") from None
    try:
        if not state.lives():
            raise LabError("container not running")
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(pidfd, number)
    finally:
        os.close(pidfd)


def kill_all(state: store.State, number: int) -> None:
    group = state.its_group()
    if number == signal.SIGKILL:
        group.kill()
    else:
        group.signal(number)


def thaw(path: str) -> None:
    """A frozen process of a v1 group does not even die."""
    from lab.host.cgroup.group import Group

    Group(path).thaw()


def signal_number(word: str) -> int:
    """TERM, SIGTERM, term, 15, RTMIN+3. Raises UsageError."""
    if word.isdecimal():
        number = int(word)
        if 1 <= number <= LARGEST:
            return number
        raise UsageError(f"invalid signal: {word}")
    name = word.upper().removeprefix("SIG")
    base, plus, offset = name.partition("+")
    if (base == "RTMAX" and "-" in name) or base.startswith("RTMAX-"):
        base, plus, offset = "RTMAX", "-", name.partition("-")[2]
    found = getattr(signal, f"SIG{base}", None)
    if not isinstance(found, int) or base.startswith("_") or (plus and not offset.isdecimal()):
        raise UsageError(f"invalid signal: {word}")
    number = int(found) + (-int(offset) if plus == "-" else int(offset or 0))
    if not 1 <= number <= LARGEST:
        raise UsageError(f"invalid signal: {word}")
    return number
