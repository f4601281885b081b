"""The image in a sandbox of bubblewrap's: namespaces and no capabilities, without masks and without a filter.

bwrap is what Flatpak, and many a build system and many an agent's tool, put between a program and the host. Where it
comes from says `lab.backends.bubble.origin`, what it is told `lab.backends.bubble.options`, how a sandbox starts and
ends `lab.backends.bubble.sandbox`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from lab.backends.bubble import origin
from lab.backends.support.host import INTERPRETED, OWN_ROOT, HostBackend
from lab.backends.support.programs.binary import BINARY
from lab.backends.support.programs.fetched import Fetched
from lab.images.store import Image
from lab.instance import NO_KNOBS, Knob, LaunchRequest, Parity, Survivor
from lab.model import Check, Stack

if TYPE_CHECKING:
    from lab.backends.support.host import Contained
    from lab.backends.support.resources import InstanceResources
    from lab.host.clock import Timeline
    from lab.runtime.config.model import Config, MountConfig
    from lab.runtime.launcher.spec import Spec

CAPABILITIES, FILTER, SETTINGS = "capabilities", "filter", "sysctls"
NONE, ALL, OFF, ON, WRITABLE, READ_ONLY = "none", "all", "off", "on", "writable", "read-only"


class Bwrap(Fetched, HostBackend):
    """lab's layers, network and limits; the boundary is bwrap's."""

    name = "bwrap"
    title = "sandbox (bubblewrap)"
    mechanism = "a process of the host behind namespaces and without capabilities, and with no filter or mask besides"
    order = 18
    rootless = True
    filtered = False
    reference = True
    source = origin.SOURCE
    another = "a bwrap of another version"
    is_its = "Its bwrap"
    stack = Stack.BUBBLEWRAP
    reading = MappingProxyType({CAPABILITIES: ALL})
    parity = Parity(
        differences=(
            "It shares the host's kernel and page cache; its memory limit covers the application, not a kernel.",
            "Root starts bwrap, without a user namespace: inside, root is the host's root, and has no capability.",
            "No filter looks at its system calls, no rule at the devices that it opens, and of /proc nothing is "
            "masked: bwrap does none of this by itself. It has neither /sys nor a view of the cgroups.",
            "The kernel's settings in /proc/sys can be written to by root inside, who can leave by them "
            "(core_pattern): bwrap makes other parts of /proc read-only, and not these.",
            "The bounding set of capabilities stays full, since bwrap empties it in a user namespace alone: "
            "no_new_privs makes it useless.",
            "A variable PWD is in its environment besides, which bwrap sets.",
            "bwrap itself stays, waiting, in the instance's group: its memory is counted.",
            "The boundary counts as created when bwrap has made the namespaces; that it mounts the root and drops "
            "what it drops falls into the time until the application is executed.",
            "A command in it (lab exec, the isolation questions) is put there by lab: bwrap can't run a second one.",
            INTERPRETED,
        ),
        rootless=(
            OWN_ROOT,
            "It is root of lab's user namespace that starts bwrap, so that the image's files have owners; the "
            "kernel's settings in /proc/sys are another root's than the one inside, who can't leave by them.",
        ),
        of_level={
            (CAPABILITIES, ALL): "Its root has every capability of the host's root.",
            (SETTINGS, READ_ONLY): "/proc/sys is bound read-only over itself, by --ro-bind.",
            (FILTER, ON): "lab's filter of system calls, Docker's by effect, is given to bwrap by --seccomp.",
        },
    )
    knobs = (
        Knob(
            name=CAPABILITIES,
            levels=(NONE, ALL),
            tells="what root inside can do that bwrap, started by root, leaves its capabilities, as it does unasked",
        ),
        Knob(name=FILTER, levels=(OFF, ON), tells="what a filter of system calls stops, and costs, by itself"),
        Knob(
            name=SETTINGS,
            levels=(WRITABLE, READ_ONLY),
            tells="what it means that bwrap, started by root, leaves the kernel's settings to root inside",
        ),
        Knob(
            name=BINARY,
            levels=(origin.SOURCE.program,),
            is_open=True,
            example="./bwrap-0.8,./bwrap-0.11",
            tells="what another version, or another build, of bwrap changes",
        ),
    )

    @classmethod
    def check(cls) -> list[Check]:
        return [*super().check(), cls._check_program()]

    def prepare(self, image: Image, knobs: Mapping[str, str] = NO_KNOBS) -> None:
        self.fetch(lambda _: None)
        self.program(self.settle(knobs)).binary.require_unchanged()
        super().prepare(image, knobs)

    def files(self, image: Image, knobs: Mapping[str, str] = NO_KNOBS) -> list[Path]:
        """As any container's, and bwrap's program."""
        return [*super().files(image, knobs), self.program(self.settle(knobs)).path]

    def config(self, request: LaunchRequest, network_namespace: Path, mounts: Sequence[MountConfig]) -> Config:
        from lab.backends.bubble.options import confined
        from lab.record import replace
        from lab.runtime.bundle import container_config

        levels = self.settle(request.knobs)
        usual = container_config(
            request.process, request.limits, hostname=request.name, network_namespace=network_namespace
        )
        return confined(
            replace(usual, mounts=tuple(mounts)),
            every_capability=levels[CAPABILITIES] == ALL,
            filtered=levels[FILTER] == ON,
            settings_read_only=levels[SETTINGS] == READ_ONLY,
        )

    def _contain(self, spec: Spec, stdio: list[int], timeline: Timeline, resources: InstanceResources) -> Contained:
        from lab.backends.bubble.sandbox import Sandbox

        program = self.program(self.settle(resources.request.knobs))
        errors = resources.request.log_directory / "stderr.log"
        return Sandbox.launch(self.site.launcher, program, spec, stdio, timeline, errors)

    def _take_over(self, request: LaunchRequest, spec: Spec, survivor: Survivor) -> Contained:
        from lab.backends.bubble.sandbox import Sandbox
        from lab.runtime.launcher.adoption import adopt

        parent = self.site.reconnected
        bwrap = adopt(self.site.launcher, spec, survivor.pid, survivor.timeline, parent=parent)
        return Sandbox.take_over(spec, bwrap, survivor.timeline)
