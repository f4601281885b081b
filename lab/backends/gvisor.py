"""A kernel of its own in user space, without a virtual machine: gVisor, from the same image and configuration.

The application's system calls are answered by gVisor's Sentry, a program on the host that is a Linux to what it
serves, and is itself held by namespaces, cgroups and a filter. runsc, its OCI runtime, is found or fetched by
`lab.backends.sentry.origin`; how a container is made of it says `lab.backends.sentry.container`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from lab import record
from lab.backends.reference import Reference, binary_knob
from lab.backends.sentry import origin, platforms
from lab.backends.sentry.platforms import PLATFORM
from lab.backends.support.host import OWN_ROOT
from lab.backends.support.programs.binary import BINARY, Binary, locate, look_at
from lab.backends.support.saving import RESTORE, START
from lab.errors import BackendUnavailable, LabError, UsageError
from lab.host.identity import privilege
from lab.instance import NO_KNOBS, Instance, LaunchRequest, Parity, Survivor
from lab.model import Check, Kernel

if TYPE_CHECKING:
    from lab.backends.support.host import Contained, HostInstance
    from lab.backends.support.programs.ociprogram import Runtime
    from lab.backends.support.resources import InstanceResources
    from lab.host.clock import Timeline
    from lab.images.store import Image
    from lab.runtime.config.model import Config, MountConfig
    from lab.runtime.launcher.spec import Spec

FIXED = (
    "--network=sandbox",  # its own, over the interface that it finds in the namespace
    "--overlay2=none",  # writes go to lab's layer, as every backend's, not to a file of the Sentry's memory
)
UNGROUPED = "--ignore-cgroups"  # an ordinary user's is put into the groups that there are
STATES = "runsc"
KNOWN_OPTIONS = {"rro": "ro", "rnosuid": "nosuid", "rnodev": "nodev"}
"""Of what is mounted below, too: in the Sentry that is part of the one mount."""


class Gvisor(Reference):
    """lab's configuration, layers, network and limits; another kernel."""

    name = "gvisor"
    title = "container (gVisor)"
    mechanism = (
        "a container whose system calls a kernel in user space answers: gVisor's Sentry, a program of the host"
    )
    rootless = True
    kernel = Kernel.USER_SPACE
    order = 43
    keeps_streams = True
    program = origin.PROGRAM
    package = origin.PROGRAM
    knobs = (START, PLATFORM, binary_knob(origin.PROGRAM))
    parity = Parity(
        differences=(
            "Its kernel is gVisor's, not Linux: what this does not know of Linux, its applications can't use.",
            "Its memory limit covers the Sentry, which is its kernel, and the gofer that serves it files, and ends "
            "all of them together; what the application sees of memory is no limit.",
            "Its TCP/IP is the Sentry's own, over the interface that Linux gives a container.",
            "Its writable layer is the same overlay on the host's disk, reached through the Sentry.",
            "An empty /tmp is a file system in memory there, as gVisor has it by default.",
            "Raw sockets are closed, and lab's filter of system calls is not loaded, as gVisor has it by default.",
            "runsc makes and starts it in one go: when the boundary stood and when the application was executed "
            "can't be told apart, and both are stamped when runsc has ended.",
            "The short-lived processes of runsc itself run outside the cgroup: figures of CPU leave them out.",
        ),
        of_level={
            (
                START.name,
                RESTORE,
            ): "A restored one's kernel has the host name of the one that was saved; /etc/hostname and address are "
            "its own. When the boundary stood and when the application went on can't be told apart, as of a start.",
            (
                PLATFORM.name,
                platforms.PTRACE,
            ): "System calls are caught by ptrace(2), which gVisor no longer advises.",
            (PLATFORM.name, platforms.KVM): "The application runs as a guest of KVM, with the Sentry as its kernel.",
        },
        rootless=(
            OWN_ROOT,
            "The Sentry is in a user namespace of its own below lab's. runsc makes no control group: lab puts it "
            "into the instance's, in which limits hold.",
        ),
    )

    @classmethod
    def binary(cls, knobs: Mapping[str, str] = NO_KNOBS) -> Binary:
        if knobs.get(BINARY, cls.program) != cls.program:
            return look_at(locate(knobs[BINARY]))
        if found := origin.SOURCE.find():
            return found
        raise UsageError(f"{cls.program} is not here yet", hint="lab run or compare --on gvisor fetches it")

    @classmethod
    def unfetched(cls) -> str:
        return origin.SOURCE.unfetched()

    @classmethod
    def fetch(cls, told: Callable[[str], None]) -> None:
        origin.SOURCE.fetch(told)

    @classmethod
    def settle(cls, knobs: Mapping[str, str] = NO_KNOBS) -> dict[str, str]:
        levels = super().settle(knobs)
        if why := cls.lacking().get((PLATFORM.name, levels[PLATFORM.name])):
            raise BackendUnavailable(
                f"{PLATFORM.name}={levels[PLATFORM.name]} of {cls.name} can't be had here: {why}",
                hint=f"{PLATFORM.name}={platforms.SYSTRAP}",
            )
        if levels[BINARY] != cls.program and (why := origin.trouble(cls.binary(levels))):
            raise UsageError(f"{levels[BINARY]} can't be used: {why}", hint=f"a {cls.program} of another version")
        return levels

    @classmethod
    def lacking(cls) -> dict[tuple[str, str], str]:
        return {**super().lacking(), **{(PLATFORM.name, level): why for level, why in platforms.lacking().items()}}

    @classmethod
    def _cannot_restore(cls) -> str:
        return ""  # it saves and restores by itself

    @classmethod
    def _check_program(cls) -> Check:
        remedy = f"put a {cls.program} of {origin.OLDEST} or later into PATH (gvisor.dev, or Debian 13's package)"
        return origin.SOURCE.check(lambda found: found.answers.describe(), remedy)

    def prepare(self, image: Image, knobs: Mapping[str, str] = NO_KNOBS) -> None:
        self.fetch(lambda _: None)
        super().prepare(image, knobs)

    def _contain(self, spec: Spec, stdio: list[int], timeline: Timeline, resources: InstanceResources) -> Contained:
        from lab.backends.sentry.container import SentryContainer

        self._list_groups()
        levels = self.settle(resources.request.knobs)
        runtime = self._runtime(self.binary(levels), levels)
        return SentryContainer.launch(runtime, self.site, spec, stdio, timeline)

    def _runtime(self, binary: Binary, knobs: Mapping[str, str]) -> Runtime:
        """Its state lies on a short path: a socket is among it, whose path holds 107 bytes (unix(7))."""
        from lab.backends.support.programs.ociprogram import Runtime

        platform = f"--platform={knobs.get(PLATFORM.name, PLATFORM.levels[0])}"
        own = (UNGROUPED,) if privilege.is_rootless() else ()
        options, states = (*FIXED, *own, platform), self.site.session.directory / STATES
        return Runtime(binary=binary, keeps_to_v1=True, options=options, states=states)

    def config(self, request: LaunchRequest, network_namespace: Path, mounts: Sequence[MountConfig]) -> Config:
        """Its mounts in the words that runsc knows: of a younger option it would say nothing, and ignore it."""
        usual = super().config(request, network_namespace, mounts)
        known = tuple(
            record.replace(each, options=tuple(KNOWN_OPTIONS.get(option, option) for option in each.options))
            for each in usual.mounts
        )
        return record.replace(usual, mounts=known)

    def adopt(self, request: LaunchRequest, survivor: Survivor) -> HostInstance:
        """By the Sentry, which is not the oldest of its processes. One whose network has gone can't be connected
        again: its TCP/IP holds the interface that it was started with.
        """
        return super().adopt(request, replace(survivor, pid=self._sentry(request.name)))

    def facing(self, instance: Instance) -> int:
        """The Sentry, which answers the application; the gofer, which is as old, has a filter of its own."""
        return self._sentry(instance.name)

    def _sentry(self, name: str) -> int:
        from lab.backends.sentry.container import sandbox_of

        try:
            return sandbox_of(self.site, name)
        except (OSError, ValueError) as error:
            raise LabError(f"{name} never came to run", hint="lab clean") from error

    def _take_over(self, request: LaunchRequest, spec: Spec, survivor: Survivor) -> Contained:
        from lab.backends.sentry.container import SentryContainer

        try:
            binary = self.binary(request.knobs)
        except UsageError:  # what it made still runs, and can be ended without it
            binary = look_at(Path(request.knobs.get(BINARY, self.program)))
        return SentryContainer.take_over(self._runtime(binary, request.knobs), self.site, spec, survivor)
