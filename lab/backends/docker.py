"""What everybody means by "containers": Docker Engine, containerd, a shim, runc, from the same image.

By default the Engine is the session's own (`lab.backends.engine`): nothing of a Docker on this host is asked, used or
changed. Where the clocks start and stop, and what they can't tell, says docs/docker.md.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from lab.backends.support.base import SiteBackend, raise_as_launch_error
from lab.errors import LabError
from lab.host.identity import privilege
from lab.host.survey import checks
from lab.instance import NO_KNOBS, Knob, LaunchRequest, Parity, Survivor
from lab.model import Check, Kernel, Stack, Volume

if TYPE_CHECKING:
    from lab.backends.engine.engine import Engine
    from lab.backends.engine.instance import DockerInstance
    from lab.backends.support.shared import SharedParts
    from lab.images.store import Image

RUNTIME = Knob(
    name="runtime",
    levels=("runc", "lab-oci"),
    tells="what of Docker's start is the runtime's, and what is everything above it",
)


class Docker(SiteBackend):
    """Docker's defaults, as ``docker run`` has them, on lab's bridge and in lab's groups."""

    name = "docker"
    title = "container (Docker)"
    mechanism = "a container as Docker makes it: its engine, containerd, a shim and runc, with Docker's defaults"
    kernel = Kernel.HOST
    stack = Stack.DOCKER
    reference = True
    order = 40
    keeps = False
    adds: ClassVar[tuple[str, ...]] = ("/.dockerenv", "/etc", "/etc/mtab")
    parity = Parity(
        differences=(
            "It shares the host's kernel and page cache; its memory limit covers the application, not a kernel.",
            "Docker's start is one call: when the boundary stood and when the application was executed can't be told "
            "apart, and both are stamped when Docker has answered.",
            "The application is process 1: there is no init in front of it, as there is in lab's containers, so that "
            "a signal it has no handler for does nothing.",
            "Docker adds two files to the root, /.dockerenv and /etc/mtab, where the image has none.",
            "What Docker does by default and lab's container does not: set-user-id programs give their owner's "
            "rights (no no_new_privs), and on cgroup v1 the host's groups can be seen.",
            "The output passes through the shim, the Engine, its log and lab.",
            "The Engine, containerd and the shims are no part of the instance's memory and CPU: these have rows of "
            "their own.",
            "No packet filter of Docker's, and no AppArmor profile: these would be the host's.",
        ),
        of_level={("runtime", "lab-oci"): "The runtime under Docker is lab's own."},
    )
    knobs: ClassVar[tuple[Knob, ...]] = (RUNTIME,)

    def __init__(self, site: SharedParts) -> None:
        super().__init__(site)
        self._engine: Engine | None = None
        self._lock = threading.Lock()

    @classmethod
    def check(cls) -> list[Check]:
        return [privilege.check(), checks.cgroup(), checks.namespaces(), checks.overlay(), _engine_is_there()]

    @classmethod
    def check_volumes(cls, volumes: Sequence[Volume]) -> None:
        """Any, as with ``docker run -v``: set-user-id programs and device nodes in it are what they are there."""

    @property
    def engine(self) -> Engine:
        """The session's; started at the first use. Raises LabError."""
        from lab.backends.engine.engine import Engine

        with self._lock:
            if self._engine is None:
                self._engine = Engine.start(self.site)
            return self._engine

    def prepare(self, image: Image, knobs: Mapping[str, str] = NO_KNOBS) -> None:
        """A running Engine that has the image, and knows that it is the same; lab's helper program."""
        from lab.inside.build import program

        program()
        self.engine.load(image)

    def files(self, image: Image, knobs: Mapping[str, str] = NO_KNOBS) -> list[Path]:
        """Docker's own copy of the layers; lab's helper program."""
        from lab.inside.build import program

        return [*self.engine.layers(image), program()]

    def launch(self, request: LaunchRequest) -> DockerInstance:
        from lab.backends.engine.instance import DockerInstance

        runtime = self.settle(request.knobs)[RUNTIME.name]
        try:
            return DockerInstance.launch(self.name, request, self.engine, runtime)
        except LabError as error:
            raise_as_launch_error(error)
            raise

    def adopt(self, request: LaunchRequest, survivor: Survivor) -> DockerInstance:
        from lab.backends.engine.engine import Engine
        from lab.backends.engine.instance import DockerInstance

        self._engine = Engine.adopt(self.site)
        for pid in self._engine.processes():  # they live in lab's network, and keep it
            self.site.adopt_network_of(pid)
            break
        return DockerInstance.adopt(self.name, request, self._engine, survivor, self.files_left(request))

    def close(self) -> None:
        with self._lock:
            engine, self._engine = self._engine, None
        if engine is not None:
            engine.close()


def _engine_is_there() -> Check:
    """The programs of a Docker Engine; nobody starts one to find out."""
    from lab.backends.engine import dockerd

    missing = dockerd.lacking()
    return Check(
        name="docker engine",
        ok=not missing,
        found=f"{missing} is not installed" if missing else dockerd.where(),
        remedy=f"apt-get install {dockerd.PACKAGE}",
        required_by=("docker",),
    )
