"""The image in a sandbox of bubblewrap's: namespaces and no capabilities, without masks and without a filter.

bwrap is what Flatpak, and many a build system and many an agent's tool, put between a program and the host. Where it
comes from says `lab.backends.bubble.origin`, what it is told `lab.backends.bubble.options`, how a sandbox starts and
ends `lab.backends.bubble.sandbox`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lab.backends.bubble import origin
from lab.backends.bubble.origin import Program
from lab.backends.support.binary import locate
from lab.backends.support.host import HostBackend
from lab.errors import UsageError
from lab.images.debian import fetching
from lab.images.store import Image
from lab.instance import NO_KNOBS, Knob, LaunchRequest, Parity, Survivor
from lab.model import Check, Stack

if TYPE_CHECKING:
    from lab.backends.support.host import Contained
    from lab.backends.support.resources import InstanceResources
    from lab.host.clock import Timeline
    from lab.runtime.config.model import Config, MountConfig
    from lab.runtime.launcher.spec import Spec

BINARY, CAPABILITIES, FILTER, SETTINGS = "binary", "capabilities", "filter", "sysctls"
NONE, ALL, OFF, ON, WRITABLE, READ_ONLY = "none", "all", "off", "on", "writable", "read-only"


class Bwrap(HostBackend):
    """lab's layers, network and limits; the boundary is bwrap's."""

    name = "bwrap"
    title = "sandbox (bubblewrap)"
    mechanism = "a process of the host behind namespaces and without capabilities, and with no filter or mask besides"
    order = 18
    filtered = False
    reference = True
    stack = Stack.BUBBLEWRAP
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
            levels=(origin.PROGRAM,),
            is_open=True,
            example="./bwrap-0.8,./bwrap-0.11",
            tells="what another version, or another build, of bwrap changes",
        ),
    )

    @classmethod
    def program(cls, knobs: Mapping[str, str] = NO_KNOBS) -> Program:
        """The bwrap of instances with these knobs. Raises UsageError where it can't be executed or is none."""
        wanted = knobs.get(BINARY, origin.PROGRAM)
        if wanted == origin.PROGRAM:
            if found := origin.find():
                return found
            raise UsageError(
                f"{origin.PROGRAM} is not here yet", hint=f"lab run or compare --on {cls.name} fetches it"
            )
        program = origin.look_at(locate(wanted))
        if program.trouble:
            raise UsageError(
                f"{wanted} can't be used: {program.trouble}", hint=f"a {origin.PROGRAM} of another version"
            )
        return program

    @classmethod
    def settle(cls, knobs: Mapping[str, str] = NO_KNOBS) -> dict[str, str]:
        levels = super().settle(knobs)
        if levels[BINARY] != origin.PROGRAM:  # the usual one is looked at by `check`
            levels[BINARY] = str(cls.program(levels).path)
        return levels

    @classmethod
    def made_by(cls, knobs: Mapping[str, str] = NO_KNOBS) -> Mapping[str, str]:
        return cls.program(knobs).identity

    @classmethod
    def differences(cls, knobs: Mapping[str, str] = NO_KNOBS) -> tuple[str, ...]:
        told = cls.made_by(knobs)
        made = f"Made by {told['path']}: {told['version']}, {told['digest'][:19]}…"
        return (*super().differences(knobs), made)

    @classmethod
    def unfetched(cls) -> str:
        return "" if origin.find() else f"{origin.RELEASE}'s {origin.PACKAGE}"

    @classmethod
    def fetch(cls, told: Callable[[str], None]) -> None:
        origin.fetch(told)

    @classmethod
    def check(cls) -> list[Check]:
        return [*super().check(), cls._check_program()]

    @classmethod
    def _check_program(cls) -> Check:
        """Whether it is there, or can be fetched when it is asked for; of the host's own, why it can't be used."""
        own, found = origin.installed(), origin.find()
        why = f"{own.path}: {own.trouble}; " if own is not None and own.trouble else ""
        if found is not None:
            said, is_ok = f"{found.path}: {found.trouble or found.version}", not found.trouble
        elif fetching.can_be_fetched(origin.SUITE):
            said, is_ok = f"not here; --on {cls.name} fetches {origin.RELEASE}'s, and leaves the host alone", True
        else:
            said, is_ok = "not installed, and this host's apt has no Debian archive to fetch it from", False
        return Check(
            name=cls.name,
            ok=is_ok,
            found=f"{why}{said}",
            remedy=f"apt-get install {origin.PACKAGE}",
            required_by=(cls.name,),
        )

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
