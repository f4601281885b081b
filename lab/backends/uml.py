"""A Linux of its own that is a process of the host: User-mode Linux, neither a virtual machine nor emulated.

Its kernel is a program. The application's processes are processes of the host, too, which that program traces: every
system call of theirs is stopped, and answered by it. Where the program comes from says
`lab.backends.usermode.origin`, what holds it `lab.backends.usermode.place`, how one starts and ends
`lab.backends.usermode.machine`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from ipaddress import IPv4Interface
from pathlib import Path
from typing import TYPE_CHECKING

from lab.backends.support.base import raise_as_launch_error
from lab.backends.support.guests.guest import GuestInstance
from lab.backends.support.guests.machine import LONGEST_DIRECTORY_BYTES, tun
from lab.backends.support.programs.binary import BINARY
from lab.backends.support.programs.fetched import Fetched, Program
from lab.backends.support.resources import InstanceResources
from lab.backends.usermode import origin
from lab.errors import LaunchError, LimitError
from lab.host.cgroup.control import ControlGroup
from lab.host.cgroup.delegation import group_of
from lab.host.clock import Timeline
from lab.host.identity import privilege
from lab.host.processor import check_machines, has_machines
from lab.host.survey import checks
from lab.images.store import Image
from lab.images.tree import Tree
from lab.instance import NO_KNOBS, Knob, LaunchRequest, Parity
from lab.model import Accelerator, Check, Kernel, Limits, Phase

if TYPE_CHECKING:
    from lab.backends.usermode.machine import Request, UserModeLinux
    from lab.network.network import TapEndpoint

DEFAULT_MEMORY_BYTES = 512 << 20
LEAST_MEMORY_BYTES = 48 << 20


class Uml(Fetched):
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
    def check(cls) -> list[Check]:
        if not has_machines():
            return [check_machines()]
        tools = [checks.tool(tool) for tool in checks.TOOLS if cls.name in tool.required_by]
        return [
            privilege.check(),
            check_machines(),
            checks.cgroup(),
            checks.namespaces(),
            checks.overlay(),
            *tools,
            tun(),
            cls._check_program(),
        ]

    @classmethod
    def _check_program(cls) -> Check:
        check = super()._check_program()
        if check.ok and cls.unfetched() and (why := origin.unkept_registers()):
            newer = ".".join(map(str, origin.KEEPS_ALL_REGISTERS))
            remedy = f"install one of Linux {newer} or newer as linux.uml; {cls.another}"
            return replace(check, ok=False, found=f"not here, and Debian's would be of no use: {why}", remedy=remedy)
        return check

    @classmethod
    def check_limits(cls, limits: Limits, knobs: Mapping[str, str] = NO_KNOBS) -> None:
        _memory_bytes(limits)

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

    def launch(self, request: LaunchRequest) -> GuestInstance:
        timeline = Timeline(request.listener)
        timeline.mark(Phase.REQUESTED)
        resources = InstanceResources(self.site, request)
        try:
            guest = self._start(request, resources, timeline)
        except BaseException as error:
            resources.release()
            raise_as_launch_error(error)
            raise
        return GuestInstance(
            self.name, request, guest, resources, Tree(self.site.store.lower_directories(request.image)),
            accelerator=Accelerator.NATIVE, cgroup=guest.request.cgroup,
        )  # fmt: skip

    def _disk(self, image: Image) -> Path:
        from lab.images.disk import roomy_disk

        return roomy_disk(self.site.store, image)

    def _start(self, request: LaunchRequest, resources: InstanceResources, timeline: Timeline) -> UserModeLinux:
        from lab.backends.usermode.machine import UserModeLinux
        from lab.runtime.plan import Before

        program = self.program(self.settle(request.knobs))
        disk = self._disk(request.image)
        with timeline.step("lab", Before.NETWORK):
            endpoint = resources.make_tap()
            tap = endpoint.open()
        try:
            wanted = self._request(request, program, disk, endpoint, tap)
            if len(os.fsencode(wanted.directory)) > LONGEST_DIRECTORY_BYTES:
                raise LaunchError(
                    f"{wanted.directory} is too long a path for sockets", hint="set LAB_HOME to a shorter one"
                )
            return UserModeLinux.start(self.site.launcher, wanted, timeline)
        finally:
            os.close(tap)

    def _request(
        self, request: LaunchRequest, program: Program, disk: Path, endpoint: TapEndpoint, tap: int
    ) -> Request:
        from lab.backends.usermode.handover import Handover
        from lab.backends.usermode.machine import Request

        return Request(
            name=request.name,
            program=program,
            image_disk=disk,
            handover=Handover(
                hostname=request.name,
                process=request.process,
                address=IPv4Interface(f"{endpoint.address}/{endpoint.prefix_length}"),
                pids=request.limits.pids,
                interactive=request.stdin is not None or request.terminal is not None,
                terminal=request.terminal,
            ),
            directory=self.site.scratch / request.name,
            log_directory=request.log_directory,
            cgroup=ControlGroup.open(group_of(self.site.session.id, request.name)),
            memory_bytes=_memory_bytes(request.limits),
            cpus=request.limits.cpus,
            tap=tap,
            mac=endpoint.mac,
            stdout=request.stdout,
            stderr=request.stderr,
            stdin=request.stdin,
            detached=request.detached,
        )


def _memory_bytes(limits: Limits) -> int:
    """The guest's RAM: the memory limit itself. Raises LimitError below the least that lab gives."""
    wanted = limits.memory_bytes or DEFAULT_MEMORY_BYTES
    if wanted < LEAST_MEMORY_BYTES:
        raise LimitError(
            f"lab starts no uml with {wanted >> 20} MiB: its kernel needs too much of that",
            hint=f"--memory {LEAST_MEMORY_BYTES >> 20}M or more",
        )
    return wanted
