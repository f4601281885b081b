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

import shutil
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from lab.backends.usermode import place
from lab.backends.usermode.contained import ContainedGuest, ContainedRequest, close, contain, ends
from lab.backends.usermode.place import Boot
from lab.host.clock import Timeline
from lab.hypervisor.channels.ports import Channels
from lab.inside import build
from lab.model import Limits, Phase

if TYPE_CHECKING:
    from lab.backends.support.programs.fetched import Program
    from lab.runtime.launcher.launcher import Launcher


@dataclass(frozen=True, slots=True, kw_only=True)
class Request(ContainedRequest):
    """One kernel to start."""

    program: Program
    cpus: float | None


class UserModeLinux(ContainedGuest):
    """A running one."""

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
                console, lines = ends(request, undo)
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
                container = contain(launcher, spec, given, console)
                undo.callback(container.close)
            timeline.mark(Phase.ISOLATED, container.timeline.at(Phase.ISOLATED))
            guest = cls(request, timeline, channels, container)
            undo.pop_all()
            close(console, *lines)  # the kernel has them now, and their end is its end
        return guest
