"""A Linux of its own that is a process of the host: User-mode Linux, neither a virtual machine nor emulated.

Its kernel is a program. The application's processes are processes of the host, too, which that program traces: every
system call of theirs is stopped, and answered by it. Where the program comes from says
`lab.backends.usermode.origin`, what holds it `lab.backends.usermode.place`, how one starts and ends
`lab.backends.usermode.machine`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from lab.backends.support.programs.binary import BINARY
from lab.backends.support.programs.fetched import Fetched
from lab.backends.usermode import origin
from lab.backends.usermode.backend import Common, ContainedBackend
from lab.host.clock import Timeline
from lab.images.store import Image
from lab.instance import NO_KNOBS, Knob, LaunchRequest, Parity
from lab.model import Accelerator, Check, Kernel

if TYPE_CHECKING:
    from lab.backends.usermode.machine import UserModeLinux


class Uml(ContainedBackend, Fetched):
    """The image's disk, a copy-on-write layer over it, and Linux as a program."""

    name = "uml"
    title = "User-mode Linux"
    mechanism = "a Linux kernel of its own that runs as a process of the host, and traces the application's processes"
    kernel = Kernel.USER_MODE
    reference = True
    source = origin.SOURCE
    another = "make ARCH=um builds one: ./linux"
    is_its = "Its kernel"
    order = 44
    accelerator = Accelerator.NATIVE
    least_memory_bytes = 48 << 20
    knobs = (
        Knob(
            name=BINARY,
            levels=(origin.SOURCE.program,),
            is_open=True,
            example="./linux-6.12,./linux-6.18",
            tells="what another version, or a build of one's own, of that kernel changes",
        ),
    )
    parity = Parity(
        differences=(
            "Memory: the limit is the guest's RAM, which holds its kernel too; a cgroup limit holds the application "
            "alone.",
            "CPU: the guest has one CPU. The limit is a quota for its kernel and its processes together, of which "
            "one runs at a time: more than one CPU can't be had.",
            "Processes: the limit is a cgroup of the guest's own kernel.",
            "Every system call, page fault and signal of the application is a stop by ptrace(2), and two changes "
            "of process on the host.",
            "Disk: reads and writes go through a virtual disk, an ext4 below a copy-on-write layer, and are cached "
            "twice, by the guest and by the host.",
            "Network: packets pass a virtual card and a tap, one at a time, where the others have a veth pair.",
            "User space: lab's helper mounts the image and starts the application; nothing else runs.",
        ),
    )

    @classmethod
    def _own_checks(cls) -> list[Check]:
        return [cls._check_program()]

    @classmethod
    def _check_program(cls) -> Check:
        check = super()._check_program()
        if check.ok and cls.unfetched() and (why := origin.unkept_registers()):
            newer = ".".join(map(str, origin.KEEPS_ALL_REGISTERS))
            remedy = f"install one of Linux {newer} or newer as linux.uml; {cls.another}"
            return replace(check, ok=False, found=f"not here, and Debian's would be of no use: {why}", remedy=remedy)
        return check

    def prepare(self, image: Image, knobs: Mapping[str, str] = NO_KNOBS) -> None:
        """Its kernel, the image's disk, lab's helper program, the session's network."""
        from lab.inside.build import program

        self.fetch(lambda _: None)
        self.program(knobs).binary.require_unchanged()
        self._disk(image)
        program()
        _ = self.site.network

    def files(self, image: Image, knobs: Mapping[str, str] = NO_KNOBS) -> list[Path]:
        """The kernel, the image's disk, the helper that goes into each guest."""
        from lab.inside.build import program

        return [self.program(self.settle(knobs)).path, self._disk(image), program()]

    def _begin(self, request: LaunchRequest, common: Common, timeline: Timeline) -> UserModeLinux:
        from lab.backends.usermode.machine import Request, UserModeLinux

        wanted = Request(**common, program=self.program(self.settle(request.knobs)), cpus=request.limits.cpus)
        return UserModeLinux.start(self.site.launcher, wanted, timeline)
