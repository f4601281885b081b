"""The story of one User-mode Linux: parts → channels → a container around the kernel → ready → stop.

    parts       an archive that says what to run, a disk of the image's that it may write over
    channels    lab listens where the guest's console, marks and output arrive: its serial lines
    launch      lab's own runtime starts the kernel, an ordinary program, behind namespaces, a filter and a control
                group of its own, as a user that nobody else is (place.py)
    ready       the guest's kernel, its init and the application report by themselves (lab/inside/guest.c)
    stop        the stop signal, time to obey, SIGKILL; then nothing may be left

What it needs of the host it is given open: the ends of its serial lines, and its tap.

Source: Documentation/virt/uml/user_mode_linux_howto_v2.rst of the kernel.
"""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

from lab.backends.usermode import place
from lab.backends.usermode.handover import Handover
from lab.backends.usermode.place import Boot
from lab.host.cgroup.control import ControlGroup
from lab.host.clock import Timeline
from lab.hypervisor.channels.ports import Channels
from lab.hypervisor.domains.domain import CONSOLE, ports
from lab.hypervisor.running import RunningGuest
from lab.inside import build
from lab.model import Limits, Phase

if TYPE_CHECKING:
    from lab.backends.support.programs.fetched import Program
    from lab.runtime.launcher.launcher import Container, Launcher
    from lab.runtime.launcher.spec import Spec

END_SECONDS = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One kernel to start. ``directory`` is a new folder, the machine's from now on, as ``cgroup`` is, which does not
    exist yet. ``tap`` is a descriptor of its card's other end, with the hardware address ``mac``; it stays the
    caller's, as the others do.
    """

    name: str
    program: Program
    image_disk: Path
    handover: Handover
    directory: Path
    log_directory: Path
    cgroup: ControlGroup
    memory_bytes: int
    cpus: float | None
    tap: int
    mac: str
    stdout: int | None = None
    stderr: int | None = None
    stdin: int | None = None
    detached: bool = False


class UserModeLinux(RunningGuest):
    """A running one."""

    most_untaken_bytes = 3072
    """A terminal's buffer of 4096 bytes less what it keeps free (drivers/tty/n_tty.c). When it is full, a serial line
    of User-mode Linux is deaf for ever: its driver stops listening, and does not begin again (line_throttle() of
    arch/um/drivers/line.c; seen with 6.1).
    """

    @classmethod
    def start(cls, launcher: Launcher, request: Request, timeline: Timeline) -> Self:
        """Start a kernel and return as soon as it is executed. Marks ISOLATED, and later KERNEL, INIT, EXECUTED.

        Raises LabError when it can't be; nothing is left behind then.
        """
        with ExitStack() as undo:
            undo.callback(shutil.rmtree, request.directory, ignore_errors=True)
            with timeline.step("lab", Boot.PARTS):
                request.directory.mkdir(mode=0o700)
                user = place.own_user()
                parts = place.make_parts(request.directory, request.handover.archive(build.program()), user)
            with timeline.step("lab", Boot.CHANNELS):
                channels = Channels(
                    request.directory, timeline, request.log_directory, stdout=request.stdout, stderr=request.stderr
                )
                undo.callback(channels.close)
                console, lines = _ends(request, undo)
            with timeline.step("lab", Boot.LAUNCH):
                given = [*lines, request.tap]
                words = place.command_line(
                    request.memory_bytes, lines=len(lines), tap=place.FIRST + len(lines), mac=request.mac
                )
                spec = place.specification(
                    request.name, request.program, words, parts, image_disk=request.image_disk, user=user,
                    limits=Limits(cpus=request.cpus), memory_bytes=request.memory_bytes, given=len(given),
                    survives=request.detached,
                )  # fmt: skip
                container = _launch(launcher, spec, given, console)
                undo.callback(container.close)
            timeline.mark(Phase.ISOLATED, container.timeline.at(Phase.ISOLATED))
            guest = cls(request, timeline, channels, container)
            undo.pop_all()
            _close(console, *lines)  # the kernel has them now, and their end is its end
        return guest

    def __init__(self, request: Request, timeline: Timeline, channels: Channels, container: Container) -> None:
        super().__init__(request, timeline, channels)
        self.request = request
        self.container = container

    def _pull_the_plug(self) -> None:
        self.container.kill()
        self._channels.wait(lambda: self._channels.ended, END_SECONDS)
        self.container.close()


def _ends(request: Request, undo: ExitStack) -> tuple[int, list[int]]:
    """Of the console and of each serial line the end that the kernel gets."""
    found = []
    used = ports(interactive=request.handover.interactive)  # guest.c numbers the serial lines alike
    for name in (CONSOLE, *(port.name.lower() for port in used)):
        end = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        end.connect(str(request.directory / name))
        found.append(end.detach())
        undo.callback(_close, found[-1])
    return found[0], found[1:]


def _launch(launcher: Launcher, spec: Spec, given: Sequence[int], console: int) -> Container:
    """Start it in its container, and send it the descriptors meanwhile."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        for descriptor in given:
            socket.send_fds(ours, [b"d"], [descriptor])
        return launcher.launch(spec, stdin=theirs.fileno(), stdout=console, stderr=console, timeline=Timeline())


def _close(*descriptors: int) -> None:
    for descriptor in descriptors:
        with suppress(OSError):
            os.close(descriptor)
