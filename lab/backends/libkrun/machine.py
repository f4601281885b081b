"""The story of one machine of libkrun's: parts → channels → a container around the monitor → ready → stop.

    parts       a folder that the guest's kernel begins with, and one for the layer that it writes to
    channels    lab listens where the guest's console, marks and output arrive: its virtio ports
    launch      lab's own runtime starts the monitor (vmm.c) behind namespaces, a filter and a control group, as a
                user that nobody else is (place.py); libkrun, which it loads, boots the kernel of libkrunfw
    ready       the guest's init and the application report by themselves (lab/inside/guest.c)
    stop        the stop signal, time to obey, SIGKILL; then nothing may be left

What it needs of the host it is given open: the ends of its ports, its tap, and /dev/kvm.
"""

from __future__ import annotations

import os
import shutil
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from lab.backends.libkrun import place
from lab.backends.libkrun.place import Start
from lab.backends.usermode.contained import ContainedGuest, ContainedRequest, close, contain, ends
from lab.backends.usermode.place import own_user
from lab.host.clock import Timeline
from lab.hypervisor.accelerator import DEVICE
from lab.hypervisor.channels.ports import Channels
from lab.inside import build
from lab.model import Phase

if TYPE_CHECKING:
    from lab.backends.libkrun.origin import Libraries
    from lab.runtime.launcher.launcher import Launcher


@dataclass(frozen=True, slots=True, kw_only=True)
class Request(ContainedRequest):
    """One machine to start."""

    libraries: Libraries
    processors: int


class KrunMachine(ContainedGuest):
    """A running one."""

    @classmethod
    def start(cls, launcher: Launcher, request: Request, timeline: Timeline) -> Self:
        """Start a machine and return as soon as its monitor is executed. Marks ISOLATED, and later INIT, EXECUTED.

        Raises LabError when it can't be; nothing is left behind then.
        """
        with ExitStack() as undo:
            undo.callback(shutil.rmtree, request.directory, ignore_errors=True)
            with timeline.step("lab", Start.PARTS):
                request.directory.mkdir(mode=0o700)
                user = own_user()
                parts = place.make_parts(request.directory, request.handover.files(), build.program(), user)
            with timeline.step("lab", Start.CHANNELS):
                channels = Channels(
                    request.directory, timeline, request.log_directory, stdout=request.stdout, stderr=request.stderr,
                    kernel_sign=None,  # it is quiet, and its console is there late
                )  # fmt: skip
                undo.callback(channels.close)
                console, lines = ends(request, undo)
                kvm = os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC)
                undo.callback(close, kvm)
            with timeline.step("lab", Start.LAUNCH):
                given = [*lines, request.tap, kvm]
                words = place.words(request.memory_bytes, request.processors, request.mac, len(lines))
                spec = place.specification(
                    request.name, request.libraries, words, parts, image_disk=request.image_disk, user=user,
                    given=len(given), survives=request.detached,
                )  # fmt: skip
                container = contain(launcher, spec, given, console)
                undo.callback(container.close)
            timeline.mark(Phase.ISOLATED, container.timeline.at(Phase.ISOLATED))
            guest = cls(request, timeline, channels, container)
            undo.pop_all()
            close(console, kvm, *lines)  # the monitor has them now, and their end is its end
        return guest
