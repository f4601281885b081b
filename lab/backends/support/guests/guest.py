"""An Instance over a guest: a kernel of its own, and lab's channels into it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from lab.backends.support.launched import LaunchedInstance
from lab.backends.support.resources import InstanceResources
from lab.host.cgroup.control import ControlGroup
from lab.images.tree import Tree
from lab.instance import Execution, LaunchRequest
from lab.model import Accelerator, Completed, Process, TerminalSize

if TYPE_CHECKING:
    from lab.hypervisor.running import RunningGuest


class GuestInstance(LaunchedInstance):
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
        super().__init__(backend, request, resources, layers, timeline=guest.timeline, cgroup=cgroup)
        self.accelerator = accelerator
        self._guest = guest

    def execute(self, argv: Sequence[str], *, stdin: bytes = b"", timeout_seconds: float = 30.0) -> Completed:
        self._guest.wait_executed()  # before that there is nobody who could
        return self._guest.execute(argv, stdin=stdin, timeout_seconds=timeout_seconds)

    def _begin(
        self, process: Process, *, stdin: int | None, stdout: int, stderr: int, terminal: TerminalSize | None = None
    ) -> Execution:
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
