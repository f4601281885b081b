"""What a start may have to wait for, in a process of its own: hooks of the host's, mounts made for the child.

The small process has one thread and many containers. A hook that sleeps, or a mount of a file system that doesn't
answer, would keep all the others waiting: so it forks a companion, which sees the new container's start through and
ends. Standard library only; see `lab.runtime.spawner.spawner`.
"""

from __future__ import annotations

import os

from lab.host import syscalls
from lab.runtime import container
from lab.runtime.channel import Channel, ChannelClosed
from lab.runtime.plan import StepFailed
from lab.shims import signal, suppress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lab.runtime.channel import Message
    from lab.runtime.container import Started
    from lab.runtime.plan import Plan, Tell


class Companion:
    """One of them. ``pidfd`` is readable when it is through."""

    def __init__(self, plan: Plan, started: Started, tell: Tell | None) -> None:
        """Begin steps 2 and 7 of ``started``, see `lab.runtime.container`. Raises OSError."""
        self._channel, theirs = Channel.pair()
        self.pid, self.pidfd = syscalls.clone_pidfd(signal.SIGCHLD)
        if self.pid == 0:
            try:
                _accompany(theirs, plan, started, tell)
            finally:
                os._exit(0)
        theirs.close()

    def kill(self) -> None:
        """SIGKILL."""
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)

    def outcome(self) -> Message:
        """DONE or FAILED, once it is through; nothing is left of it then."""
        try:
            message, _ = self._channel.receive()
        except ChannelClosed:
            message = {"message": "FAILED", "step": "start", "number": 0, "text": "its companion was killed"}
        os.waitpid(self.pid, 0)
        os.close(self.pidfd)
        self._channel.close()
        return message


def _accompany(channel: Channel, plan: Plan, started: Started, tell: Tell | None) -> None:
    syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)
    try:
        container.accompany(plan, started, tell)
    except StepFailed as failure:
        channel.send("FAILED", step=failure.step, number=failure.number, text=failure.text)
    else:
        channel.send("DONE")
