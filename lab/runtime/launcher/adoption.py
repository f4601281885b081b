"""Take over what a supervisor that died has left: its small process if that lives, and its container.

A container's exit code is told to its parent alone. The parent is the small process; a new one can signal the
container, join it and see it end, but never learns the code.
"""

from __future__ import annotations

import os
import select
import signal
import socket
from contextlib import ExitStack, suppress
from pathlib import Path

from lab.errors import LabError
from lab.host.cgroup.control import ControlGroup
from lab.host.cgroup.delegation import group_of
from lab.host.clock import Timeline
from lab.runtime.channel import Channel, ChannelClosed
from lab.runtime.launcher.launcher import Container, Launcher, Spec

CLAIM_TIMEOUT_SECONDS = 10.0


class _Left:
    """A process that is no child of ours, as `lab.runtime.launcher.launcher.Spawned`."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._pidfd = os.pidfd_open(pid)

    def wait(self, timeout: float | None = None) -> int | None:
        """Until it has ended, whatever its exit code."""
        select.select([self._pidfd], [], [], timeout)
        return None

    def kill(self) -> None:
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)


def reconnect(session: str, scratch: Path, socket_path: Path) -> tuple[Launcher, list[int]] | None:
    """The launcher whose small process listens at ``socket_path``, and the descriptors that this one held.

    They are the caller's. None when nobody listens there any more.
    """
    end = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        end.settimeout(CLAIM_TIMEOUT_SECONDS)
        end.connect(str(socket_path))
        channel = Channel(end)
        message, held = channel.receive()
        left = _Left(int(str(message["pid"])))
    except (OSError, ChannelClosed):
        end.close()
        return None
    end.settimeout(None)
    channel.allow_large_messages()
    return Launcher(session, scratch, left, channel), held


def adopt(launcher: Launcher, spec: Spec, pid: int, timeline: Timeline, *, parent: bool) -> Container:
    """The container whose first process is ``pid``; ``parent`` says that ``launcher``'s process started it.

    Raises LabError when it has ended, unless the parent knows how.
    """
    cgroup = ControlGroup.open(group_of(launcher.session, spec.name))
    handle = launcher.register(spec.name, timeline, survives=True)
    with ExitStack() as owned:
        owned.callback(cgroup.remove, keep_parents=True)
        owned.callback(launcher.forget, handle)
        owned.callback(launcher._end, handle, cgroup)
        container = Container(launcher, spec, cgroup, handle)
        if parent:
            launcher.send("CLAIM", id=spec.name)
            handle.wait_claimed()
        else:
            try:
                handle.found(pid, os.pidfd_open(pid))
            except ProcessLookupError as error:
                raise LabError(f"{spec.name} has ended") from error
        cgroup.group.follow(pid)
        container.own(owned)
    with launcher._registry:
        launcher._containers[spec.name] = container
    return container
