"""What the backends have in common whose guests are `contained`: their limits, their image's disk, a launch."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Mapping
from ipaddress import IPv4Interface
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, TypedDict

from lab.backends.support.base import SiteBackend, raise_as_launch_error
from lab.backends.support.guests.guest import GuestInstance
from lab.backends.support.guests.machine import LONGEST_DIRECTORY_BYTES, tun
from lab.backends.support.resources import InstanceResources
from lab.errors import LaunchError, LimitError
from lab.host.cgroup.control import ControlGroup
from lab.host.cgroup.delegation import group_of
from lab.host.clock import Timeline
from lab.host.identity import privilege
from lab.host.processor import check_machines, has_machines
from lab.host.survey import checks
from lab.hypervisor.parts import DEFAULT_MEMORY_BYTES
from lab.images.store import Image
from lab.images.tree import Tree
from lab.instance import NO_KNOBS, LaunchRequest
from lab.model import Accelerator, Check, Limits, Phase

if TYPE_CHECKING:
    from lab.backends.usermode.contained import ContainedGuest
    from lab.backends.usermode.handover import Handover
    from lab.network.network import TapEndpoint


class Common(TypedDict):
    """The fields of a `lab.backends.usermode.contained.ContainedRequest`, which says what they are."""

    name: str
    image_disk: Path
    handover: Handover
    directory: Path
    log_directory: Path
    cgroup: ControlGroup
    memory_bytes: int
    tap: int
    mac: str
    stdout: int | None
    stderr: int | None
    stdin: int | None
    detached: bool


class ContainedBackend(SiteBackend):
    """Subclasses say what accelerates them, how much memory a guest has at least, in bytes, and whether packets have
    virtio's headers. They add their own checks, and `_begin` a guest.
    """

    accelerator: ClassVar[Accelerator]
    least_memory_bytes: ClassVar[int]
    with_headers: ClassVar[bool] = False

    @classmethod
    def check(cls) -> list[Check]:
        if not has_machines():
            return [check_machines()]
        tools = [checks.tool(tool) for tool in checks.TOOLS if cls.name in tool.required_by]
        return [
            privilege.check(), check_machines(), checks.cgroup(), checks.namespaces(), checks.overlay(), *tools,
            tun(), *cls._own_checks(),
        ]  # fmt: skip

    @classmethod
    @abstractmethod
    def _own_checks(cls) -> list[Check]:
        """What it needs besides."""

    @classmethod
    def check_limits(cls, limits: Limits, knobs: Mapping[str, str] = NO_KNOBS) -> None:
        cls._memory_bytes(limits)

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
            accelerator=self.accelerator, cgroup=guest.request.cgroup,
        )  # fmt: skip

    @abstractmethod
    def _begin(self, request: LaunchRequest, common: Common, timeline: Timeline) -> ContainedGuest:
        """Start the guest of this ``request``."""

    def _start(self, request: LaunchRequest, resources: InstanceResources, timeline: Timeline) -> ContainedGuest:
        from lab.runtime.plan import Before

        directory = self.site.scratch / request.name
        if len(os.fsencode(directory)) > LONGEST_DIRECTORY_BYTES:
            raise LaunchError(f"{directory} is too long a path for sockets", hint="set LAB_HOME to a shorter one")
        with timeline.step("lab", Before.NETWORK):
            endpoint = resources.make_tap()
            tap = endpoint.open(with_headers=self.with_headers)
        try:
            return self._begin(request, self._common(request, directory, endpoint, tap), timeline)
        finally:
            os.close(tap)

    def _common(self, request: LaunchRequest, directory: Path, endpoint: TapEndpoint, tap: int) -> Common:
        from lab.backends.usermode.handover import Handover

        return Common(
            name=request.name,
            image_disk=self._disk(request.image),
            handover=Handover(
                hostname=request.name,
                process=request.process,
                address=IPv4Interface(f"{endpoint.address}/{endpoint.prefix_length}"),
                pids=request.limits.pids,
                interactive=request.stdin is not None or request.terminal is not None,
                terminal=request.terminal,
                is_machine=self.accelerator is not Accelerator.NATIVE,
            ),
            directory=directory,
            log_directory=request.log_directory,
            cgroup=ControlGroup.open(group_of(self.site.session.id, request.name)),
            memory_bytes=self._memory_bytes(request.limits),
            tap=tap,
            mac=endpoint.mac,
            stdout=request.stdout,
            stderr=request.stderr,
            stdin=request.stdin,
            detached=request.detached,
        )

    def _disk(self, image: Image) -> Path:
        from lab.images.disk import roomy_disk

        return roomy_disk(self.site.store, image)

    @classmethod
    def _memory_bytes(cls, limits: Limits) -> int:
        """The guest's RAM: the memory limit itself. Raises LimitError below the least that lab gives."""
        wanted, least = limits.memory_bytes or DEFAULT_MEMORY_BYTES, cls.least_memory_bytes
        if wanted < least:
            raise LimitError(
                f"lab starts no {cls.name} with {wanted >> 20} MiB: its kernel needs too much of that",
                hint=f"--memory {least >> 20}M or more",
            )
        return wanted
