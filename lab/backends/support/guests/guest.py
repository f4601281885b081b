"""An Instance over a guest: a kernel of its own, and lab's channels into it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from lab.backends.support.resources import InstanceResources
from lab.backends.support.streams import another_process
from lab.host.cgroup.control import ControlGroup
from lab.images.process import stop_signal_of
from lab.images.tree import Tree
from lab.instance import Execution, Instance, LaunchRequest
from lab.model import Accelerator, Completed, TerminalSize

if TYPE_CHECKING:
    from lab.hypervisor.running import RunningGuest


class GuestInstance(Instance):
    """A guest that runs one application."""

    def __init__(
        self,
        backend: str,
        request: LaunchRequest,
        guest: RunningGuest,
        resources: InstanceResources,
        layers: Tree,
        *,
        accelerator: Accelerator,
        cgroup: ControlGroup,
    ) -> None:
        self.name = request.name
        self.backend = backend
        self.request = request
        self.timeline = guest.timeline
        self.address = resources.address
        self.published = resources.published
        self.accelerator = accelerator
        self.cgroup = cgroup
        self._guest = guest
        self._resources = resources
        self._layers = layers
        self._stop_signal = stop_signal_of(request.image)

    def execute(self, argv: Sequence[str], *, stdin: bytes = b"", timeout_seconds: float = 30.0) -> Completed:
        self._guest.wait_executed()  # before that there is nobody who could
        return self._guest.execute(argv, stdin=stdin, timeout_seconds=timeout_seconds)

    def begin(
        self,
        argv: Sequence[str],
        *,
        stdin: int | None,
        stdout: int,
        stderr: int,
        terminal: TerminalSize | None = None,
        environment: Mapping[str, str] | None = None,
        directory: str = "",
        user: str = "",
    ) -> Execution:
        process = another_process(
            self.request, self._layers, argv,
            terminal=terminal, environment=environment, directory=directory, user=user,
        )  # fmt: skip
        self._guest.wait_executed()  # before that there is nobody who could
        return self._guest.begin(process, stdin=stdin, stdout=stdout, stderr=stderr, terminal=terminal)

    def resize(self, size: TerminalSize) -> None:
        self._guest.resize(size)

    def wait(self, timeout_seconds: float | None = None) -> int | None:
        return self._guest.wait(timeout_seconds)

    def wait_executed(self) -> None:
        self._guest.wait_executed()

    def signal(self, number: int) -> None:
        self._guest.signal(number)

    def stop(self, grace_seconds: float = 10.0) -> None:
        self._guest.stop(grace_seconds, self._stop_signal, release=self._resources.release)
