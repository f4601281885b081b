"""As much of an instance as any backend can take over: its processes, its cgroup, its network. No commands inside."""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from lab.backends.support.resources import InstanceResources
from lab.errors import ExitUnknown, LabError
from lab.host.cgroup.control import ControlGroup
from lab.host.cgroup.delegation import group_of
from lab.instance import Instance, LaunchRequest, Survivor
from lab.model import Completed, Phase

if TYPE_CHECKING:
    from lab.backends.support.shared import SharedParts


class BareInstance(Instance):
    """What `SiteBackend.adopt` makes of a survivor: it can be watched, signalled, stopped and removed."""

    def __init__(
        self, backend: str, site: SharedParts, request: LaunchRequest, survivor: Survivor, *, stop_signal: int
    ) -> None:
        """Raises LabError when it has ended, whether its parent has waited for it or not."""
        try:
            self._pidfd = os.pidfd_open(survivor.pid)
        except ProcessLookupError as error:
            raise LabError(f"{request.name} has ended") from error
        if self._ended(0):
            self._let_go()
            raise LabError(f"{request.name} has ended")
        with suppress(LabError):
            site.adopt_network_of(survivor.pid)
        published = () if site.network_lost else request.published  # a port that leads nowhere is worse
        self._resources = InstanceResources.adopt(site, replace(request, published=published), survivor.address)
        self._stop_signal = stop_signal
        self.name, self.backend, self.request = request.name, backend, request
        self.timeline, self.accelerator, self.address = survivor.timeline, survivor.accelerator, survivor.address
        self.published = self._resources.published
        self.cgroup = ControlGroup.open(group_of(site.session.id, request.name))

    def execute(self, argv: Sequence[str], *, stdin: bytes = b"", timeout_seconds: float = 30.0) -> Completed:
        raise LabError(f"backend {self.backend} can't run commands in an instance that was taken over")

    def wait(self, timeout_seconds: float | None = None) -> int | None:
        if self._ended(timeout_seconds):
            raise ExitUnknown(f"the exit code of {self.name} is not known: its parent was killed")
        return None

    def _ended(self, timeout_seconds: float | None) -> bool:
        return self._pidfd < 0 or bool(select.select([self._pidfd], [], [], timeout_seconds)[0])

    def signal(self, number: int) -> None:
        """To its first process."""
        with suppress(ProcessLookupError):
            if self._pidfd >= 0:
                signal.pidfd_send_signal(self._pidfd, number)

    def stop(self, grace_seconds: float = 10.0) -> None:
        self.timeline.mark(Phase.STOPPING)
        if grace_seconds > 0 and not self._ended(0):
            self.signal(self._stop_signal)
            self._ended(grace_seconds)
        with ExitStack() as each:  # in reverse order, whatever the others raise
            each.callback(self._let_go)
            each.callback(self._resources.release)
            each.callback(self.cgroup.remove)
            each.callback(self.cgroup.kill)
        self.timeline.mark(Phase.GONE)

    def _let_go(self) -> None:
        descriptor, self._pidfd = self._pidfd, -1
        if descriptor >= 0:
            os.close(descriptor)
