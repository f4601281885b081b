"""An instance that a backend has launched: what it was asked for, and how one more command gets into it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence

from lab.backends.support.resources import InstanceResources
from lab.host.cgroup.control import ControlGroup
from lab.host.clock import Timeline
from lab.images.process import find_account, stop_signal_of
from lab.images.tree import Tree
from lab.instance import Execution, Instance, LaunchRequest
from lab.model import Process, TerminalSize

DEFAULT_TERM = "xterm"


class LaunchedInstance(Instance):
    """Gives up ``resources`` when it ends; ``layers`` are its image's files, in which users are looked up."""

    def __init__(
        self,
        backend: str,
        request: LaunchRequest,
        resources: InstanceResources,
        layers: Tree,
        *,
        timeline: Timeline,
        cgroup: ControlGroup,
    ) -> None:
        self.name = request.name
        self.backend = backend
        self.request = request
        self.timeline = timeline
        self.address = resources.address
        self.published = resources.published
        self.cgroup = cgroup
        self._resources = resources
        self._layers = layers
        self._stop_signal = stop_signal_of(request.image)

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
        """Raises UsageError for a user that the image does not have."""
        application = self.request.process
        given = dict(application.environment)
        uid, gid, more = application.uid, application.gid, application.additional_gids
        if user:
            account = find_account(self._layers, user)
            uid, gid, more = account.uid, account.gid, account.additional_gids
            given["HOME"] = account.home
        if terminal:
            given.setdefault("TERM", DEFAULT_TERM)
        process = Process(
            argv=tuple(argv),
            environment={**given, **(environment or {})},
            working_directory=directory or application.working_directory,
            uid=uid,
            gid=gid,
            additional_gids=more,
        )
        return self._begin(process, stdin=stdin, stdout=stdout, stderr=stderr, terminal=terminal)

    @abstractmethod
    def _begin(
        self, process: Process, *, stdin: int | None, stdout: int, stderr: int, terminal: TerminalSize | None = None
    ) -> Execution:
        """As `begin`, of a process whose user, environment and directory are settled."""
