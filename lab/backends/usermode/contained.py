"""A guest whose process lab's own runtime contains: what User-mode Linux and a machine of libkrun's have in common.

Its process gets what it needs of the host open, over its standard input (lab/inside/wire.c): the other ends of its
ports, and its tap.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lab.backends.usermode.handover import Handover
from lab.host.cgroup.control import ControlGroup
from lab.host.clock import Timeline
from lab.hypervisor.channels.ports import Channels
from lab.hypervisor.domains.domain import CONSOLE, ports
from lab.hypervisor.running import RunningGuest

if TYPE_CHECKING:
    from lab.runtime.launcher.launcher import Container, Launcher
    from lab.runtime.launcher.spec import Spec

END_SECONDS = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainedRequest:
    """One guest to start. ``directory`` is a new folder, the guest's from now on, as ``cgroup`` is, which does not
    exist yet. ``tap`` is a descriptor of its card's other end, with the hardware address ``mac``; it stays the
    caller's, as the others do.
    """

    name: str
    image_disk: Path
    handover: Handover
    directory: Path
    log_directory: Path
    cgroup: ControlGroup
    memory_bytes: int
    tap: int
    mac: str
    stdout: int | None = None
    stderr: int | None = None
    stdin: int | None = None
    detached: bool = False


class ContainedGuest(RunningGuest):
    """A running one."""

    most_untaken_bytes = 3072
    """A terminal's buffer of 4096 bytes less what it keeps free (drivers/tty/n_tty.c). When it is full, a serial line
    of User-mode Linux is deaf for ever: its driver stops listening, and does not begin again (line_throttle() of
    arch/um/drivers/line.c; seen with 6.1). The first process in the guest acknowledges, whatever its ports are.
    """

    def __init__(
        self, request: ContainedRequest, timeline: Timeline, channels: Channels, container: Container
    ) -> None:
        super().__init__(request, timeline, channels)
        self.request = request
        self.container = container

    def _pull_the_plug(self) -> None:
        self.container.kill()
        self._channels.wait(lambda: self._channels.ended, END_SECONDS)
        self.container.close()


def ends(request: ContainedRequest, undo: ExitStack) -> tuple[int, list[int]]:
    """The ends of the console and of each port that the guest's process gets; ``undo`` closes them."""
    found = []
    used = ports(interactive=request.handover.interactive)  # guest.c numbers them alike
    for name in (CONSOLE, *(port.name.lower() for port in used)):
        end = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        end.connect(str(request.directory / name))
        found.append(end.detach())
        undo.callback(close, found[-1])
    return found[0], found[1:]


def contain(launcher: Launcher, spec: Spec, given: Sequence[int], console: int) -> Container:
    """Start its process in its container, and send it the descriptors meanwhile."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        for descriptor in given:
            socket.send_fds(ours, [b"d"], [descriptor])
        return launcher.launch(spec, stdin=theirs.fileno(), stdout=console, stderr=console, timeline=Timeline())


def close(*descriptors: int) -> None:
    """Close them, but for those that are closed already."""
    for descriptor in descriptors:
        with suppress(OSError):
            os.close(descriptor)
