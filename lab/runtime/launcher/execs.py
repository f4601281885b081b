"""One more process in a running container, behind the same boundary: namespaces, cgroups, root, rlimits,
capabilities, no_new_privs, seccomp.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from typing import Protocol

from lab.errors import LabError, LaunchError
from lab.host.clock import Timeline
from lab.host.execution import terminals
from lab.model import Completed, Process, TerminalSize
from lab.record import items, replace
from lab.runtime.config.model import Capabilities, Config, ProcessConfig, User
from lab.runtime.launcher.descriptors import memory_file, pipe
from lab.runtime.launcher.handle import Handle, collect
from lab.runtime.launcher.spec import Spec
from lab.runtime.plan import CgroupsPlan
from lab.runtime.planning import translate

END_TIMEOUT_SECONDS = 10.0


class Spawning(Protocol):
    """The client of the small process, as an exec sees it."""

    def send(self, name: str, *, descriptors: Sequence[int] = (), **fields: object) -> None: ...
    def register(self, identity: str, timeline: Timeline) -> Handle: ...
    def forget(self, handle: Handle) -> None: ...


class Running(Protocol):
    """As much of a running container as one more process in it takes."""

    name: str
    spec: Spec

    @property
    def launcher(self) -> Spawning: ...
    @property
    def pid(self) -> int: ...
    @property
    def pidfd(self) -> int: ...
    def placement(self) -> CgroupsPlan: ...
    def name_execution(self) -> str: ...


class Exec:
    """A process that was started in a running container. Its streams are whoever's gave them."""

    def __init__(self, launcher: Spawning, handle: Handle) -> None:
        self._launcher = launcher
        self._handle = handle

    @property
    def pidfd(self) -> int:
        """Readable once it has ended (pidfd_open(2))."""
        return self._handle.pidfd

    def wait(self, timeout_seconds: float | None = None) -> int | None:
        """Its exit code (128 + n after signal n), or None when the time ran out first."""
        return self._handle.wait(timeout_seconds)

    def signal(self, number: int) -> None:
        """Send it a signal. No error if it has ended."""
        self._handle.send_signal(number)

    def close(self) -> None:
        """Kill it if it still runs, or as soon as it does. Idempotent."""
        if self.pidfd < 0 and self._handle.exit_code is None:
            with suppress(LaunchError):
                self._launcher.send("ABANDON", id=self._handle.identity)
        self.signal(signal.SIGKILL)
        self.wait(END_TIMEOUT_SECONDS)
        self._launcher.forget(self._handle)


def start(
    container: Running, process: ProcessConfig, stdio: Sequence[int], *, terminal: TerminalSize | None = None
) -> Exec:
    """Start ``process`` with the three descriptors of ``stdio``, which stay the caller's; return once it is executed.

    With ``terminal`` the first of them is a socket: over it lab's helper sends the master of the terminal that it
    has made for the process. Raises LaunchError with exit code 126 or 127 when it can't be executed.
    """
    launcher, config = container.launcher, container.spec.config
    helper = terminals.as_option(terminal) if terminal else ()
    plan = translate.process_plan(config, init=container.spec.init, process=process, helper=helper)
    plan = replace(plan, read_only_by_landlock=container.spec.read_only_by_landlock)
    if container.spec.filter:
        plan = replace(plan, seccomp=container.spec.filter, seccomp_flags=0)
    handle = launcher.register(container.name_execution(), Timeline())
    started = Exec(launcher, handle)
    with ExitStack() as undo:
        undo.callback(started.close)
        root = os.open(f"/proc/{container.pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            launcher.send(
                "EXECUTE",
                id=handle.identity,
                process=items(plan),
                namespaces=translate.joined_flags(config),
                cgroups=items(container.placement()),
                descriptors=[*stdio, container.pidfd, root],
            )
        finally:
            os.close(root)
        handle.wait_started(isolated_is_enough=False)
        undo.pop_all()
    return started


def run(container: Running, process: ProcessConfig, *, stdin: bytes, timeout_seconds: float) -> Completed:
    """Run ``process`` to its end. Raises as `start` does, and LabError when it does not end in time, or writes more
    than `handle.MOST_BYTES` to a stream. It is then killed.
    """
    what = f"{process.args[0]} in container {container.name}"
    with ExitStack() as opened:
        source = memory_file(stdin, opened)
        (out, out_end), (err, err_end) = pipe(opened), pipe(opened)
        try:
            started = start(container, process, [source, out_end, err_end])
        finally:
            os.close(out_end)
            os.close(err_end)
        opened.callback(started.close)
        output = collect([out, err], started.pidfd, timeout_seconds, what=what)
        if output is None:
            started.signal(signal.SIGKILL)
        code = started.wait(END_TIMEOUT_SECONDS)
    if output is None or code is None:
        raise LabError(f"{what} did not end within {timeout_seconds:g} s")
    return Completed(exit_code=code, stdout=output[0], stderr=output[1])


def exec_process(config: Config, argv: Sequence[str], user: User, directory: str) -> ProcessConfig:
    """Another process of the same container: root gets the container's bounding set, another user nothing."""
    bounding = config.process.capabilities.bounding
    granted = bounding if user.uid == 0 else ()
    sets = Capabilities(bounding=bounding, effective=granted, permitted=granted)
    return replace(config.process, args=tuple(argv), user=user, capabilities=sets, cwd=directory)


def resolved(config: Config, process: Process) -> ProcessConfig:
    """`exec_process` for a process with everything said about it."""
    user = User(uid=process.uid, gid=process.gid, additional_gids=process.additional_gids)
    environment = tuple(f"{name}={value}" for name, value in process.environment.items())
    return replace(exec_process(config, process.argv, user, process.working_directory), env=environment)
