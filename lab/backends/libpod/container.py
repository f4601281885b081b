"""One container of podman's, from the request to the verified end.

1. a group of lab's, whose limits are unlimited: the runtime makes its own below, with the limits
2. a network namespace of lab's, on lab's bridge
3. ``podman run --detach``: layer, overlay, conmon, runtime, execve, all in one call
                                                              → ISOLATED and EXECUTED when it has ended

The application's streams are lab's own descriptors, which podman and conmon hand on (``--log-driver passthrough``),
as in the services that Quadlet makes. What remains is a conmon, the parent of process 1, and no podman.

Source: podman-run(1), podman-exec(1), podman-rm(1), conmon(8).
"""

from __future__ import annotations

import json
import os
import select
import signal
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from enum import StrEnum
from errno import ENOENT
from pathlib import Path
from typing import TYPE_CHECKING

from lab.backends.libpod.podman import LABEL, SECONDS, Podman, last_words, ulimits
from lab.backends.support.programs import children
from lab.backends.support.programs.anothers import LIKE_DOCKER, GroupAround, not_started
from lab.backends.support.programs.children import KILL_SECONDS, Child
from lab.errors import ExitUnknown, LabError, LaunchError
from lab.host.cgroup.control import ControlGroup
from lab.host.cgroup.delegation import group_of
from lab.host.cgroup.hierarchy import Unused
from lab.host.clock import Timeline, now
from lab.host.execution import terminals
from lab.host.execution.told import errno_told
from lab.host.identity import private, privilege
from lab.inside.build import program as helper
from lab.instance import INSIDE, LaunchRequest, Survivor
from lab.model import Completed, Limits, Phase, Process, TerminalSize, Volume
from lab.runtime.launcher.descriptors import pipe
from lab.runtime.oci.store import OWN

if TYPE_CHECKING:
    from lab.backends.support.output import Output
    from lab.backends.support.resources import InstanceResources

STATUS, SOCKET = 3, 4  # the first descriptors that --preserve-fds lets through
NOT_FOUND, NOT_EXECUTABLE = 127, 126
EXIT_SECONDS = 0.1  # within which conmon has written the exit code
STEP_SECONDS = 0.005
ENDED = ("exited", "stopped")


class Call(StrEnum):
    """The step of a start, as far as it can be seen from outside."""

    RUN = "let podman run it"


class PodmanContainer:
    """What podman's run has left: a conmon and, below it, the application."""

    def __init__(self, podman: Podman, name: str, identity: str, cgroup: ControlGroup, timeline: Timeline) -> None:
        self.name = name
        self.cgroup = cgroup
        self.timeline = timeline
        self.run_seconds = 0.0
        self._podman = podman
        self._identity = identity
        self._pidfd = -1
        self._exit_code: int | None = None
        self._unknown = False
        self._asking = threading.Lock()
        self._executing = threading.Lock()
        self._owned = ExitStack()

    @classmethod
    def launch(
        cls,
        podman: Podman,
        request: LaunchRequest,
        image: str,
        runtime: str,
        resources: InstanceResources,
        stdio: Sequence[int],
        stderr: Output,
        timeline: Timeline,
    ) -> PodmanContainer:
        """Start it; ``stderr`` is what podman itself complains to, as the application does. Raises LaunchError."""
        site, log = podman.site, request.log_directory / "stderr.log"
        path, scratch = group_of(site.session.id, request.name), resources.make_scratch()
        resources.stack.callback(ControlGroup.open(path, hierarchies=Unused.detect()).remove, keep_parents=True)
        # An ordinary user's podman makes no group: what is limited is this one, which the runtime enters.
        own = privilege.is_rootless()
        made = resources.make_control_group(request.limits if own else Limits())
        cgroup = made if own else GroupAround(made.path, made.hierarchies)
        network = resources.make_endpoint().path
        written = log.stat().st_size if log.exists() else 0
        entering = podman.entering(made) if own else []
        words = _words(request, scratch, [*entering, "--runtime", runtime], f"/{path}", network)
        words += ["--label", f"{LABEL}={site.session.id}", image]
        began = now()
        with ExitStack() as undo, timeline.step("podman", Call.RUN):
            undo.callback(_discard, podman, request.name)
            code = children.wait_child(podman.spawn(words, stdio), SECONDS, "podman run")
            ended = now()
            if code:
                stderr.close()
                said = last_words(log.read_bytes()[written:].decode(errors="replace")) or f"exit code {code}"
                raise not_started("podman", request.name, said)
            timeline.mark(Phase.ISOLATED, ended)
            timeline.mark(Phase.EXECUTED, ended)
            identity = (scratch / "id").read_text().strip()
            if isinstance(cgroup, GroupAround):
                cgroup.below = ControlGroup.open(f"{path}/libpod-{identity}")
            container = cls(podman, request.name, identity, cgroup, timeline)
            container.run_seconds = ended - began
            container._hold(int((scratch / "pid").read_text()))
            undo.pop_all()
        return container

    @classmethod
    def take_over(cls, podman: Podman, request: LaunchRequest, survivor: Survivor) -> PodmanContainer:
        """What a process has launched that was killed. Its output goes to its logs as before.

        Raises LabError when it has ended.
        """
        known = podman.inspect(request.name)
        if not known["State"]["Running"]:
            raise LabError(f"container {request.name} has ended")
        path, identity = group_of(podman.site.session.id, request.name), str(known["Id"])
        made = cgroup = ControlGroup.open(path)
        if not privilege.is_rootless():
            cgroup = around = GroupAround(made.path, made.hierarchies)
            around.below = ControlGroup.open(f"{path}/libpod-{identity}")
        container = cls(podman, request.name, identity, cgroup, survivor.timeline)
        container._hold(survivor.pid)
        container._owned.callback(made.remove, keep_parents=True)
        container._owned.callback(ControlGroup.open(path, hierarchies=Unused.detect()).remove, keep_parents=True)
        return container

    @property
    def bundle(self) -> Path:
        """Podman's config.json of it."""
        return self._podman.userdata(self._identity) / "config.json"

    def _hold(self, pid: int) -> None:
        with suppress(ProcessLookupError):  # it has ended, and conmon has reaped it
            self._pidfd = os.pidfd_open(pid)
            self.cgroup.group.follow(pid, tuple(OWN.values()))  # where there is no group

    def execute(self, argv: Sequence[str], *, stdin: bytes = b"", timeout_seconds: float = 30.0) -> Completed:
        """Run a command as root. See `lab.instance.Instance.execute`."""
        process = Process(argv=tuple(argv), environment={}, working_directory="/", uid=0, gid=0)
        what = f"{argv[0]} in container {self.name}"
        return children.complete(lambda stdio: self.begin(process, stdio), what, stdin, timeout_seconds)

    def begin(
        self, process: Process, stdio: Sequence[int], *, terminal: TerminalSize | None = None
    ) -> PodmanExecution:
        """``podman exec``, with lab's helper in front of the command, which tells whether that could be executed.

        With a terminal, ``stdio`` begins with the socket over which the helper sends the terminal it makes.
        """
        if self.wait(0) is not None:
            raise LabError(f"container {self.name} has ended")
        with self._executing, ExitStack() as opened, tempfile.TemporaryDirectory(dir=self._podman.folder) as name:
            status, status_end = pipe(opened)
            options, descriptors = ["--report-fd", str(STATUS)], [*stdio, status_end]
            if terminal:
                null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
                opened.callback(os.close, null)
                options += ["--socket-fd", str(SOCKET), *terminals.as_option(terminal)]
                descriptors = [null, *stdio[1:], status_end, stdio[0]]
            entering = self._podman.entering(self.cgroup) if privilege.is_rootless() else []
            words = [*entering, "exec", "--interactive", f"--preserve-fds={len(descriptors) - STATUS}"]
            words += ["--user", f"{process.uid}:{process.gid}", *_environment(process.environment, Path(name))]
            options += ["--directory", process.working_directory]
            words += [self._identity, INSIDE, "init", *options, "--", *process.argv]
            before = self._sessions()
            try:
                child = Child(os.pidfd_open(self._podman.spawn(words, descriptors)))
            finally:
                os.close(status_end)
            number = _told(status, child.pidfd)
            begun = PodmanExecution(child, self._podman.userdata(self._identity), self._sessions() - before)
            if number is None:
                code = child.wait(KILL_SECONDS)
                begun.close()
                raise LaunchError(
                    f"podman did not execute {process.argv[0]} in container {self.name}: exit code {code}",
                    exit_code=LIKE_DOCKER,
                )
            if number:
                begun.close()
                raise LaunchError(
                    f"container {self.name}: execve: {process.argv[0]}: {os.strerror(number)}",
                    exit_code=NOT_FOUND if number == ENOENT else NOT_EXECUTABLE,
                    hint="does the image hold that program?",
                )
        return begun

    def _sessions(self) -> frozenset[str]:
        """The commands that run in it, by podman's ids of them."""
        with suppress(FileNotFoundError):
            return frozenset(each.name for each in self._podman.userdata(self._identity).iterdir())
        return frozenset()

    def wait(self, timeout_seconds: float | None = None) -> int | None:
        """The application's exit code (128 + n after signal n), or None when the time ran out first.

        Raises ExitUnknown when nobody knows it.
        """
        if self._exit_code is None and not self._unknown:
            if self._pidfd >= 0 and not select.select([self._pidfd], [], [], timeout_seconds)[0]:
                return None
            with self._asking:
                if self._exit_code is None and not self._unknown:
                    self._exit_code = self._ask()
                    self._unknown = self._exit_code is None
        if self._unknown:
            raise ExitUnknown(f"the exit code of {self.name} is not known: its conmon was killed")
        return self._exit_code

    def _ask(self) -> int | None:
        """conmon writes it down as soon as the application has ended; podman keeps it when it has cleaned up."""
        file, deadline = self._podman.exit_file(self._identity), time.monotonic() + EXIT_SECONDS
        while time.monotonic() < deadline:
            with suppress(FileNotFoundError):
                if text := file.read_text().strip():
                    return int(text)
            time.sleep(STEP_SECONDS)
        deadline = time.monotonic() + KILL_SECONDS
        with suppress(LabError):
            while time.monotonic() < deadline:
                state = self._podman.inspect(self._identity)["State"]
                if state["Status"] in ENDED:
                    return int(state["ExitCode"])
        return None

    def signal(self, number: int) -> None:
        """``podman kill --signal``. No error if it has ended."""
        with suppress(ExitUnknown):
            if self.wait(0) is None:
                with suppress(LabError):
                    self._podman.call("kill", "--signal", str(number), self._identity)

    def close(self) -> None:
        """Kill what still runs and have podman remove it. Idempotent. Raises LabError."""
        with suppress(ExitUnknown, ProcessLookupError):
            if self._pidfd >= 0 and self.wait(0) is None:
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
                self.wait(KILL_SECONDS)
        with ExitStack() as each:
            each.callback(self._owned.close)
            if self._identity:
                each.callback(self._podman.call, "rm", "--force", "--time", "0", "--volumes", self._identity)
            self._identity = ""
        if self._pidfd >= 0:
            os.close(self._pidfd)
            self._pidfd = -1


class PodmanExecution:
    """A command in a container: its client, whose exit code is the command's, and the process that it is about."""

    def __init__(self, child: Child, userdata: Path, sessions: frozenset[str]) -> None:
        self._child = child
        self._files = [userdata / session / "exec_pid" for session in sessions]

    @property
    def pidfd(self) -> int:
        return self._child.pidfd

    def wait(self, timeout_seconds: float | None = None) -> int | None:
        return self._child.wait(timeout_seconds)

    def signal(self, number: int) -> None:
        """To lab's helper in the container, which hands it on. Nothing if it has ended."""
        deadline = time.monotonic() + EXIT_SECONDS
        while self._child.wait(0) is None and time.monotonic() < deadline:
            for file in self._files:
                with suppress(OSError, ValueError):
                    os.kill(int(file.read_text()), number)
                    return
            time.sleep(STEP_SECONDS)

    def close(self) -> None:
        if self._child.wait(0) is None:
            self.signal(signal.SIGKILL)
            self._child.wait(KILL_SECONDS)
        self._child.close()


def _words(
    request: LaunchRequest, scratch: Path, runtime: Sequence[str], cgroup_parent: str, network: Path
) -> list[str]:
    """What ``podman run`` is asked for, up to the image; ``runtime`` are the words before it."""
    process, limits = request.process, request.limits
    argv = list(process.argv)
    if request.terminal:
        argv = [INSIDE, "init", *terminals.as_option(request.terminal), "--", *argv]
    words = [*runtime, "run", "--detach", "--pull", "never", "--name", request.name]
    words += ["--hostname", request.name, "--cidfile", str(scratch / "id"), "--pidfile", str(scratch / "pid")]
    words += ["--log-driver", "passthrough", "--network", f"ns:{network}", "--dns", "none", "--no-healthcheck"]
    own = privilege.is_rootless()
    words += ["--cgroups", "disabled"] if own else ["--cgroup-parent", cgroup_parent, "--cgroups", "no-conmon"]
    words += ulimits()
    words += ["--user", f"{process.uid}:{process.gid}", "--workdir", process.working_directory]
    words += [word for gid in process.additional_gids for word in ("--group-add", str(gid))]
    words += ["--interactive"] if request.stdin is not None or request.terminal else []
    words += [] if own else _limited(limits)
    mounts = [Volume(source=str(helper().parent), target=str(Path(INSIDE).parent), read_only=True), *request.volumes]
    words += [word for each in mounts for word in ("--volume", _mount(each))]
    return [*words, *_environment(process.environment, scratch), "--entrypoint", json.dumps(argv)]


def _limited(limits: Limits) -> list[str]:
    words = []
    if limits.memory_bytes:  # no swap on top, as on the other backends
        words += ["--memory", str(limits.memory_bytes), "--memory-swap", str(limits.memory_bytes)]
    words += ["--cpus", f"{limits.cpus:.9f}"] if limits.cpus else []
    return [*words, "--pids-limit", str(limits.pids or -1)]


def _mount(volume: Volume) -> str:
    """Podman makes the mount itself read-only, and none below it: so what is mounted below one is not shown."""
    options = "bind,rprivate,ro" if volume.read_only else "rbind,rprivate,rw"
    return f"{volume.source}:{volume.target}:{options}"


def _environment(variables: Mapping[str, str], folder: Path) -> list[str]:
    """In a file that is the owner's alone, for anybody may read a command line; only a value that no line can hold
    (podman-run(1), --env-file) is on one.
    """
    listed = {name: value for name, value in variables.items() if "\n" not in value and value[:1] not in ("'", '"')}
    private.write_text(folder / "environment", "".join(f"{name}={value}\n" for name, value in listed.items()))
    rest = [word for name, value in variables.items() if name not in listed for word in ("--env", f"{name}={value}")]
    return ["--env-file", str(folder / "environment"), *rest]


def _told(status: int, client: int) -> int | None:
    """What lab's helper says of a command: 0 if it was executed, else errno. None of one that ``client`` did not even
    start.
    """
    select.select([status, client], [], [], SECONDS)
    os.set_blocking(status, False)
    with suppress(BlockingIOError, LaunchError):
        return errno_told(os.read(status, 16))
    return None


def _discard(podman: Podman, name: str) -> None:
    """What a start has left that failed."""
    with suppress(LabError):
        podman.call("rm", "--force", "--time", "0", "--volumes", "--ignore", name)
