"""The field's containers without a daemon: podman, a conmon for each, runc, from the same image.

Podman's store, settings and mounts are the session's own (`lab.backends.libpod`): nothing of a podman on this host is
asked, used or changed. Where the clocks start and stop, and what they can't tell, says docs/podman.md.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from lab.backends.support.base import SiteBackend, raise_as_launch_error
from lab.backends.support.host import OWN_ROOT
from lab.backends.support.programs.ociprogram import mounted_unified
from lab.errors import BackendUnavailable
from lab.host.cgroup.hierarchy import Mode, host_hierarchies
from lab.host.clock import Timeline
from lab.host.identity import privilege
from lab.host.survey import checks
from lab.instance import NO_KNOBS, Companion, Knob, LaunchRequest, Parity, Survivor
from lab.model import Check, Kernel, Phase, Stack, Volume

if TYPE_CHECKING:
    from lab.backends.libpod.container import PodmanContainer
    from lab.backends.libpod.podman import Podman as Engine
    from lab.backends.support.host import HostInstance
    from lab.backends.support.output import Outputs
    from lab.backends.support.resources import InstanceResources
    from lab.backends.support.shared import SharedParts
    from lab.backends.support.streams import Streams
    from lab.images.store import Image

RUNTIME = Knob(
    name="runtime",
    levels=("runc", "lab-oci", "crun"),
    tells="what of podman's start is the runtime's, and what is everything above it",
)


class Podman(SiteBackend):
    """Podman's defaults, as ``podman run`` has them, in lab's network and in lab's groups."""

    name = "podman"
    title = "container (podman)"
    mechanism = "a container as podman makes it, without a daemon: podman, conmon and runc, with podman's defaults"
    kernel = Kernel.HOST
    stack = Stack.PODMAN
    reference = True
    order = 39
    rootless = True
    keeps = False
    adds: ClassVar[tuple[str, ...]] = ("/etc", "/etc/mtab", "/run", "/run/.containerenv")
    parity = Parity(
        differences=(
            "It shares the host's kernel and page cache; its memory limit covers the application, not a kernel.",
            "Podman's start is one call, which ends when the application runs: when the boundary stood and when the "
            "application was executed can't be told apart, and both are stamped at its end.",
            "The application is process 1: there is no init in front of it, as there is in lab's containers, so that "
            "a signal it has no handler for does nothing.",
            "What podman does by default and lab's container does not: set-user-id programs give their owner's "
            "rights (no no_new_privs), and on cgroup v1 the host's groups can be seen.",
            "The distribution's podman gives root eleven capabilities, without CAP_NET_RAW, CAP_MKNOD and "
            "CAP_AUDIT_WRITE, and a filter that allows user namespaces and keyrings.",
            "Podman adds two files to the root, /run/.containerenv and /etc/mtab, where the image has none.",
            "The application has lab's own descriptors as its output, as in the services that Quadlet makes: no "
            "conmon copies it, as one does for podman's other log drivers.",
            "Its conmon, which holds it, is no part of the instance's memory and CPU, nor is podman: these have rows "
            "of their own.",
            "No AppArmor profile, no SELinux label: these would be the host's.",
        ),
        rootless=(
            OWN_ROOT,
            "Podman is told of no control group and no limit (--cgroups=disabled): its runtime enters those of "
            "the instance, in which limits hold. Where there is none, what podman and conmon use is not counted.",
        ),
        of_level={
            ("runtime", "lab-oci"): "The runtime under podman is lab's own.",
            ("runtime", "crun"): "The runtime under podman is crun, which Debian's podman takes by default.",
        },
    )
    knobs = (RUNTIME,)

    def __init__(self, site: SharedParts) -> None:
        super().__init__(site)
        self._engine: Engine | None = None
        self._lock = threading.Lock()

    @classmethod
    def settle(cls, knobs: Mapping[str, str] = NO_KNOBS) -> dict[str, str]:
        """Raises BackendUnavailable for a runtime that can't work here."""
        levels = super().settle(knobs)
        if why := cls.lacking().get((RUNTIME.name, levels[RUNTIME.name])):
            raise BackendUnavailable(f"{RUNTIME.name}={levels[RUNTIME.name]}: {why}", hint="--knob runtime=runc")
        return levels

    @classmethod
    def lacking(cls) -> Mapping[tuple[str, str], str]:
        from lab.backends.libpod import podman

        if not podman.has("crun"):
            return {(RUNTIME.name, "crun"): "crun is not installed"}
        hybrid = host_hierarchies().mode is Mode.HYBRID
        if hybrid or (privilege.is_rootless() and mounted_unified()):  # which a user may see without any group there
            return {(RUNTIME.name, "crun"): "crun refuses a host with cgroup v1 and v2 at once, as this one is"}
        return {}

    @classmethod
    def check(cls) -> list[Check]:
        usual = [privilege.check(), checks.cgroup(), checks.namespaces(), checks.overlay(), _podman_is_there()]
        return [*usual, *([checks.subordinate_ids()] if privilege.is_rootless() else [])]

    @classmethod
    def check_volumes(cls, volumes: Sequence[Volume]) -> None:
        """Any, as with ``podman run -v``: set-user-id programs and device nodes in it are what they are there."""

    @property
    def engine(self) -> Engine:
        """The session's; made at the first use. Raises LabError."""
        from lab.backends.libpod.podman import Podman as Engine

        with self._lock:
            if self._engine is None:
                self._engine = Engine.start(self.site)
            return self._engine

    def prepare(self, image: Image, knobs: Mapping[str, str] = NO_KNOBS) -> None:
        """A store of podman's that has the image, and where it is known to be the same; lab's helper program."""
        from lab.inside.build import program

        program()
        self.engine.take(image)

    def files(self, image: Image, knobs: Mapping[str, str] = NO_KNOBS) -> list[Path]:
        """Podman's own copy of the layers; lab's helper program."""
        from lab.inside.build import program

        return [*self.engine.layers(image), program()]

    def launch(self, request: LaunchRequest) -> HostInstance:
        from lab.backends.support.host import HostInstance
        from lab.backends.support.output import Outputs
        from lab.backends.support.resources import InstanceResources
        from lab.backends.support.streams import Streams
        from lab.images.tree import Tree

        runtime = self.settle(request.knobs)[RUNTIME.name]
        outputs, streams, resources = Outputs(), Streams(), InstanceResources(self.site, request)
        try:
            engine = self.engine
            image = engine.take(request.image)  # before the clock, where `prepare` did not do it
            used = engine.cgroup.cpu().total_seconds
            timeline = Timeline(request.listener)
            timeline.mark(Phase.REQUESTED)
            container = _start(engine, request, image, runtime, resources, outputs, streams, timeline)
        except BaseException as error:
            outputs.close()
            resources.release()
            raise_as_launch_error(error)
            raise
        layers = Tree(self.site.store.lower_directories(request.image))
        instance = HostInstance(self.name, request, container, resources, outputs, streams, layers)
        instance.bundle = container.bundle
        instance.companion = Companion(
            title=f"podman {engine.version}",
            cgroup=engine.cgroup,
            processes=engine.processes,
            calls={"run": container.run_seconds},
            cpu_before_seconds=used,
            alone_bytes=engine.alone_bytes,
        )
        return instance

    def adopt(self, request: LaunchRequest, survivor: Survivor) -> HostInstance:
        from lab.backends.libpod.container import PodmanContainer
        from lab.backends.libpod.podman import Podman as Engine
        from lab.backends.support.host import HostInstance
        from lab.backends.support.output import Outputs
        from lab.backends.support.resources import InstanceResources
        from lab.backends.support.streams import Streams

        engine = self._engine = Engine.adopt(self.site, survivor.pid)
        container = PodmanContainer.take_over(engine, request, survivor)
        resources = InstanceResources.adopt(self.site, request, survivor.address)
        layers = self.files_left(request)
        return HostInstance(self.name, request, container, resources, Outputs(), Streams(), layers)

    def close(self) -> None:
        with self._lock:
            engine, self._engine = self._engine, None
        if engine is not None:
            engine.close()


def _start(
    engine: Engine,
    request: LaunchRequest,
    image: str,
    runtime: str,
    resources: InstanceResources,
    outputs: Outputs,
    streams: Streams,
    timeline: Timeline,
) -> PodmanContainer:
    """The container, which has its streams; ``outputs`` are its logs."""
    from lab.backends.libpod.container import PodmanContainer

    stdout = outputs.open(request.log_directory / "stdout.log", request.stdout)
    stderr = outputs.open(request.log_directory / "stderr.log", request.stderr)
    outputs.enter_context(streams)
    if request.terminal:
        stdio = streams.terminal(request.stdin, stdout.descriptor)
    else:
        stdio = [streams.input(request.stdin), stdout.descriptor, stderr.descriptor]
    with ExitStack() as undo:
        container = PodmanContainer.launch(engine, request, image, runtime, resources, stdio, stderr, timeline)
        undo.callback(container.close)
        stdout.handed_over()
        stderr.handed_over()
        streams.handed_over()
        undo.pop_all()
    return container


def _podman_is_there() -> Check:
    """Podman, its conmon and a runtime; no container is made to find out."""
    from lab.backends.libpod import podman

    missing = podman.lacking()
    return Check(
        name="podman",
        ok=not missing,
        found=missing or f"{podman.program('podman')} {podman.version()}",
        remedy=f"apt-get install {podman.PACKAGE}",
        required_by=("podman",),
    )
