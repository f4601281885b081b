"""The image in a container of systemd-nspawn's: the container's thick neighbour, made to boot whole systems.

Where the program comes from says `lab.backends.systemd.origin`, what it is told `lab.backends.systemd.options`, how
a container starts and ends `lab.backends.systemd.container`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from lab.backends.support.host import INTERPRETED, HostBackend
from lab.backends.support.programs.binary import BINARY
from lab.backends.support.programs.fetched import Fetched
from lab.backends.systemd import origin
from lab.errors import BackendUnavailable, UsageError
from lab.host.cgroup.hierarchy import host_hierarchies
from lab.images.store import Image
from lab.instance import NO_KNOBS, Knob, LaunchRequest, Parity, Survivor
from lab.model import Check, Stack, Volume

if TYPE_CHECKING:
    from lab.backends.support.host import Contained
    from lab.backends.support.resources import InstanceResources
    from lab.host.clock import Timeline
    from lab.runtime.config.model import Config, MountConfig
    from lab.runtime.launcher.spec import Spec

CAPABILITIES, FILTER, PRIVILEGES = "capabilities", "filter", "no-new-privileges"
OWN, DOCKERS, ON, OFF = "own", "docker", "on", "off"
HIDDEN = (("proc",), ("sys",), ("dev",))
"""What nspawn mounts anew, with all that is below, besides /run, of which what is in it is shown."""


class Nspawn(Fetched, HostBackend):
    """lab's layers, network and limits; the boundary is nspawn's."""

    name = "nspawn"
    title = "container (systemd-nspawn)"
    mechanism = "a process of the host behind namespaces, a filter and masks, whose root may do nearly all root may"
    order = 19
    own_filter = True
    reference = True
    source = origin.SOURCE
    another = "a systemd-nspawn of another version"
    is_its = "Its systemd-nspawn"
    stack = Stack.NSPAWN
    adds = ("/bin", "/etc", "/lib", "/lib64", "/root", "/run", "/run/host", "/sbin", "/tmp", "/usr", "/var")
    parity = Parity(
        differences=(
            "It shares the host's kernel and page cache; its memory limit covers the application, not a kernel.",
            "Its root is the host's root with 26 capabilities, CAP_SYS_ADMIN among them, where a container's has 14: "
            "nspawn's manual says that such a root can get out.",
            "Its filter of system calls is nspawn's own, and allows what its capabilities are for, mount(2) for "
            "example.",
            "A set-uid program in it gains privileges: nspawn sets no_new_privs where it is asked to.",
            "The rules for devices are lab's, as the unit systemd-nspawn@.service has some: started so, nspawn sets "
            "none.",
            "/run is nspawn's, with what the image has in it mounted there, and the host's os-release in /run/host; "
            "/dev/shm may take a tenth of the host's memory, a container's 64 MiB.",
            "Its boot id is one that nspawn drew, mounted over the kernel's.",
            "It may make groups below its own, within the limits that hold for all of them.",
            "rlimits that the configuration does not name are those of the host's first process.",
            "nspawn itself stays, waiting, in the instance's group: its memory is counted.",
            "The boundary counts as created when nspawn says that the container is ready (sd_notify): most of its "
            "work is done by then.",
            INTERPRETED,
            "A command in it (lab exec, the isolation questions) is put there by lab, with the capabilities, the "
            "rlimits and the filter of its first process, as the kernel tells them.",
        ),
        of_level={
            (CAPABILITIES, DOCKERS): "Its root is left Docker's 14 capabilities, by --drop-capability.",
            (FILTER, OFF): "No filter looks at its system calls (SYSTEMD_SECCOMP=0).",
            (PRIVILEGES, ON): "no_new_privs is set, by --no-new-privileges.",
        },
    )
    knobs = (
        Knob(
            name=CAPABILITIES,
            levels=(OWN, DOCKERS),
            tells="what the capabilities allow that nspawn leaves its root and Docker does not",
        ),
        Knob(name=FILTER, levels=(ON, OFF), tells="what nspawn's filter of system calls stops, and costs, by itself"),
        Knob(name=PRIVILEGES, levels=(OFF, ON), tells="what it means that set-uid programs work in it"),
        Knob(
            name=BINARY,
            levels=(origin.SOURCE.program,),
            is_open=True,
            example="./nspawn-252,./nspawn-257",
            tells="what another version, or another build, of systemd-nspawn changes",
        ),
    )

    @classmethod
    def check(cls) -> list[Check]:
        return [*super().check(), cls._check_program()]

    @classmethod
    def check_volumes(cls, volumes: Sequence[Volume]) -> None:
        for volume in volumes:
            parts = PurePosixPath(volume.target).parts[1:]
            if parts[:1] in HIDDEN or parts == ("run",):
                raise UsageError(
                    f"nspawn mounts a /{parts[0]} of its own: nothing can be mounted at {volume.target}",
                    hint="-v SOURCE:/run/NAME, a folder in it" if parts == ("run",) else "another place for it",
                )

    def prepare(self, image: Image, knobs: Mapping[str, str] = NO_KNOBS) -> None:
        if host_hierarchies().unified is None:
            raise BackendUnavailable(
                "systemd-nspawn is kept in lab's control groups by version 2 of them, and none is mounted here",
                hint="mkdir -p /sys/fs/cgroup/unified && mount -t cgroup2 none /sys/fs/cgroup/unified",
            )
        self.fetch(lambda _: None)
        self.program(self.settle(knobs)).binary.require_unchanged()
        super().prepare(image, knobs)

    def files(self, image: Image, knobs: Mapping[str, str] = NO_KNOBS) -> list[Path]:
        """As any container's, and nspawn's program with its library."""
        program = self.program(self.settle(knobs))
        return [*super().files(image, knobs), program.path, *program.libraries]

    def config(self, request: LaunchRequest, network_namespace: Path, mounts: Sequence[MountConfig]) -> Config:
        from lab.backends.systemd.options import confined
        from lab.record import replace
        from lab.runtime.bundle import container_config

        usual = container_config(
            request.process, request.limits, hostname=request.name, network_namespace=network_namespace
        )
        levels = self.settle(request.knobs)
        return confined(replace(usual, mounts=tuple(mounts)), no_new_privileges=levels[PRIVILEGES] == ON)

    def _contain(self, spec: Spec, stdio: list[int], timeline: Timeline, resources: InstanceResources) -> Contained:
        from lab.backends.systemd.container import Levels, NspawnContainer

        levels = self.settle(resources.request.knobs)
        asked = Levels(filtered=levels[FILTER] == ON, dockers_capabilities=levels[CAPABILITIES] == DOCKERS)
        program = self.program(levels)
        errors = resources.request.log_directory / "stderr.log"
        return NspawnContainer.launch(self.site.launcher, program, asked, spec, stdio, timeline, errors)

    def _take_over(self, request: LaunchRequest, spec: Spec, survivor: Survivor) -> Contained:
        from lab.backends.systemd.container import NspawnContainer
        from lab.runtime.launcher.adoption import adopt

        parent = self.site.reconnected
        nspawn = adopt(self.site.launcher, spec, survivor.pid, survivor.timeline, parent=parent)
        return NspawnContainer.take_over(spec, nspawn, survivor.timeline)
