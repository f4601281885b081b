"""Containers for the rest of lab: start, wait, signal, run a command beside, remove and verify.

`Launcher` is the client of the small process in `lab.runtime.spawner.spawner`, which does the forking. A `Container`
owns what was made for it: its control group, its scratch layers, its processes. All of it is safe to use from
several threads, and many containers may start, run and end at the same time.
"""

from __future__ import annotations

import itertools
import logging
import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Protocol

import lab
from lab.errors import ExitUnknown, LabError, LaunchError
from lab.host.cgroup import delegation, descent
from lab.host.cgroup.control import ControlGroup
from lab.host.cgroup.delegation import group_of
from lab.host.cgroup.systemd import Scope, holds
from lab.host.clock import Timeline
from lab.host.closing import Closing
from lab.host.command import tail
from lab.model import Completed, Phase, Process, TerminalSize
from lab.runtime import readonly
from lab.runtime.cgroup import devices
from lab.runtime.cgroup.instances import explained_by, limited
from lab.runtime.channel import BadMessage, Channel, ChannelClosed
from lab.runtime.config.model import Config, User
from lab.runtime.launcher import checkpoint, execs
from lab.runtime.launcher.descriptors import null_unless
from lab.runtime.launcher.execs import Exec
from lab.runtime.launcher.handle import Handle
from lab.runtime.launcher.spec import Spec, explained, placement, plan_of, refuse_callers_share, with_helper
from lab.runtime.plan import Before, CgroupsPlan
from lab.runtime.rootfs import layers
from lab.runtime.rootfs.layers import Directory, Overlay

__all__ = ["Container", "Directory", "Launcher", "Overlay", "Spec"]

log = logging.getLogger(__name__)

END_TIMEOUT_SECONDS = 10.0


class Container(Closing):
    """One running container. A context manager: leaving it kills, removes and verifies."""

    def __init__(self, launcher: Launcher, spec: Spec, cgroup: ControlGroup, handle: Handle) -> None:
        self.name = spec.name
        self.spec = spec
        self.cgroup = cgroup
        self.launcher = launcher
        self._handle = handle
        self._owned = ExitStack()
        self._closing = threading.Lock()
        self._executions = itertools.count(1)

    @property
    def pid(self) -> int:
        """Its first process, as the host numbers it."""
        return self._handle.pid

    @property
    def pidfd(self) -> int:
        """Its first process for the kernel (pidfd_open(2)); stays this object's."""
        return self._handle.pidfd

    @property
    def timeline(self) -> Timeline:
        return self._handle.timeline

    @property
    def config(self) -> Config:
        """Its configuration, lab's helper included."""
        return with_helper(self.spec)

    def keep_writes(self, target: Path) -> None:
        """Have what it has written to its root as the folder ``target``, once it has ended."""
        (layers.folder_of(self.name, self.launcher.scratch) / layers.UPPER).rename(target)

    def placement(self) -> CgroupsPlan:
        """Where its processes are placed."""
        return placement(self.cgroup)

    def name_execution(self) -> str:
        """A name for one more process in it."""
        return f"{self.name}/{next(self._executions)}"

    def proceed(self) -> None:
        """Let a held container execute its application. Raises LaunchError when that fails."""
        self.launcher.send("PROCEED", id=self._handle.identity)
        self._handle.wait_started(isolated_is_enough=False)

    def wait(self, timeout_seconds: float | None = None) -> int | None:
        """The application's exit code (128 + n after signal n), or None when the time ran out first."""
        return self._handle.wait(timeout_seconds)

    def signal(self, number: int) -> None:
        """Send a signal to the application (to its first process, which forwards it). No error if it has ended."""
        self._handle.send_signal(number)

    def kill(self) -> None:
        """SIGKILL to everything in the container; returns when it is dead. Idempotent."""
        if not self.cgroup.directories:
            descent.kill_below(self.pid, END_TIMEOUT_SECONDS, pidfd=self.pidfd)
        self._handle.send_signal(signal.SIGKILL)
        self.cgroup.kill(END_TIMEOUT_SECONDS)

    def execute(
        self,
        argv: Sequence[str],
        *,
        stdin: bytes = b"",
        timeout_seconds: float = 30.0,
        uid: int = 0,
        gid: int = 0,
    ) -> Completed:
        """Run one more command behind the same boundary; see `lab.runtime.launcher.execs`.

        Raises LaunchError when it can't be executed, LabError when it does not end in time; it is then killed.
        """
        if self._handle.exit_code is not None:
            raise LabError(f"container {self.name} has ended")
        process = execs.exec_process(self.spec.config, argv, User(uid=uid, gid=gid), "/")
        return execs.run(self, process, stdin=stdin, timeout_seconds=timeout_seconds)

    def begin(self, process: Process, stdio: Sequence[int], *, terminal: TerminalSize | None = None) -> Exec:
        """Start one more process behind the same boundary; see `lab.runtime.launcher.execs.start`."""
        if self._handle.exit_code is not None:
            raise LabError(f"container {self.name} has ended")
        return execs.start(self, execs.resolved(self.spec.config, process), stdio, terminal=terminal)

    def close(self) -> None:
        """Kill what still runs and remove everything that was made for it, verified. Idempotent.

        Raises LabError if something survives.
        """
        with self._closing:
            self._owned.close()

    def own(self, resources: ExitStack) -> None:
        """Take over what was made for it."""
        self._owned = resources.pop_all()


class Spawned(Protocol):
    """The small process: a child of ours, or one that a former supervisor has left behind."""

    pid: int

    def wait(self, timeout: float | None = None) -> int | None: ...
    def kill(self) -> None: ...


class Launcher(Closing):
    """One session's containers. Start it before the heavy imports, close it last."""

    def __init__(self, session: str, scratch: Path, process: Spawned, channel: Channel) -> None:
        self.session = session
        self.scratch = scratch
        self._process = process
        self._channel = channel
        self._sending = threading.Lock()
        self._handles: dict[str, Handle] = {}
        self._containers: dict[str, Container] = {}
        self._registry = threading.Lock()
        self._gone: LaunchError | None = None
        self.when_gone: Callable[[], None] = lambda: None  # called when the small process has died
        self._reader = threading.Thread(target=self._read, name="lab-launcher", daemon=True)
        self._reader.start()

    @classmethod
    def start(
        cls,
        session: str,
        scratch: Path,
        *,
        cleanup: Sequence[str] = (),
        company: Sequence[int] = (),
        description: str = "",
    ) -> Launcher:
        """Start the small process; it is ready some 40 ms later, and requests wait for it meanwhile.

        ``scratch`` is a folder of the session's own, made here and removed at the end. ``cleanup`` is a command
        (its first word an absolute path) that the small process runs if this process dies without `close`.

        Where systemd owns the cgroups the small process leaves the unit that it was started in for the session's own
        scope, called ``description``, in which the containers' groups will lie, and so do the processes ``company``:
        they end neither with that unit nor by its limits. Raises LabError when systemd refuses that.
        """
        (scratch / "root").mkdir(parents=True, exist_ok=True)
        ours, theirs = Channel.pair()
        ours.allow_large_messages()
        source = Path(lab.__file__).parent.parent
        start = "from lab.runtime.spawner.spawner import command; command()"
        code = f"import sys; sys.path.insert(0, {str(source)!r}); {start}"
        words = [readonly.INTERPRETER, "-I", "-S", "-c", code, str(theirs.fileno()), session, str(scratch), *cleanup]
        with (scratch / "launcher.log").open("wb") as errors, readonly.opened() as tree:
            process = subprocess.Popen(
                words,
                executable=f"/proc/self/fd/{tree}" if tree >= 0 else None,
                stdin=subprocess.DEVNULL,
                stdout=errors,
                stderr=errors,
                pass_fds=[theirs.fileno(), *([tree] if tree >= 0 else [])],
                cwd="/",
                start_new_session=True,
            )
        theirs.close()
        launcher = cls(session, scratch, process, ours)
        scope = Scope.of(session)
        if delegation.here() and not holds(scope.name, process.pid):  # unless we are there ourselves
            try:
                scope.start([process.pid, *company], description or f"lab session {session}")
            except BaseException:
                launcher.close()
                raise
        return launcher

    @property
    def pid(self) -> int:
        """The small process."""
        return self._process.pid

    def launch(
        self,
        spec: Spec,
        *,
        stdin: int | None = None,
        stdout: int,
        stderr: int,
        timeline: Timeline | None = None,
    ) -> Container:
        """Start a container and return once its application has been executed (or isolated, under ``hold``).

        The descriptors stay the caller's; ``stdin`` None is /dev/null. Marks REQUESTED if nobody has, ISOLATED,
        INIT and EXECUTED, or RESTORED instead of these two. Raises LaunchError with Docker's exit code, 125, 126 or
        127, and LimitError; nothing is left behind then.
        """
        refuse_callers_share(spec.config)
        timeline = timeline or Timeline()
        timeline.mark(Phase.REQUESTED)
        with ExitStack() as undo:
            with timeline.step("lab", Before.CGROUP):
                cgroup = limited(group_of(self.session, spec.name), spec.config.linux.resources)
                undo.callback(cgroup.remove, keep_parents=True)
            if rules := spec.config.linux.resources.devices:
                with timeline.step("lab", Before.DEVICES):
                    devices.guard(cgroup.group, rules)
            with timeline.step("lab", Before.WRITES):
                config = with_helper(spec)
                root = layers.prepare(spec.root, spec.name, config.mounts, self.scratch, undo)
            with timeline.step("lab", Before.PLAN):
                plan = plan_of(spec, config, root, cgroup)
                if spec.checkpoint is not None:
                    told = layers.folder_of(spec.name, self.scratch) / "criu"
                    told.mkdir()
                    plan = checkpoint.restoring(plan, spec.checkpoint, config, told)
            if timeline.listener is not None:
                plan = explained(plan, timeline.listener)
            handle = self.register(spec.name, timeline, survives=spec.survives)
            undo.callback(self.forget, handle)
            undo.callback(self._end, handle, cgroup)
            container = Container(self, spec, cgroup, handle)
            with null_unless(stdin) as source:
                self.send("LAUNCH", id=spec.name, plan=plan.to_json(), descriptors=[source, stdout, stderr])
            try:
                handle.wait_started(isolated_is_enough=spec.hold)
            except LaunchError as error:
                raise (checkpoint.failure(error, told) if spec.checkpoint else explained_by(cgroup, error)) from None
            cgroup.group.follow(handle.pid)
            container.own(undo)
        with self._registry:
            self._containers[spec.name] = container
        return container

    def keep(
        self,
        name: str,
        first: int,
        held: Sequence[int],
        *,
        locks: Sequence[Path] = (),
        socket_path: Path,
        exit_path: Path,
    ) -> None:
        """Let the instance ``name``, whose first process is the pidfd ``first``, survive this process.

        From now on the small process ends with the instance instead; until then it keeps ``held`` open, shares the
        lock on each of ``locks`` (flock(2)), listens at ``socket_path`` (see `lab.runtime.launcher.adoption`), and
        writes the exit code it knows, or null, to ``exit_path``.
        """
        paths = {"socket_path": str(socket_path), "exit_path": str(exit_path), "locks": [str(one) for one in locks]}
        self.send("KEEP", id=name, descriptors=[first, *held], **paths)

    def send(self, name: str, *, descriptors: Sequence[int] = (), **fields: object) -> None:
        """One request to the small process. Raises LaunchError when it is gone, or the request too long for it."""
        try:
            with self._sending:
                self._channel.send(name, descriptors=descriptors, **fields)
        except BadMessage as error:
            hint = "arguments and environment count; files can be mounted"
            raise LaunchError(f"too much for one instance: {error}", hint=hint, exit_code=125) from error
        except (ChannelClosed, OSError) as error:
            raise self._gone or LaunchError(f"lab's launcher can't be reached: {error}", exit_code=125) from error

    def close(self) -> None:
        """Close every container, end the small process, remove the scratch folder. Idempotent.

        Each part is tried even if another fails; the first error is raised.
        """
        with ExitStack() as parts:
            parts.callback(shutil.rmtree, self.scratch, ignore_errors=True)
            parts.callback(ControlGroup.open(group_of(self.session, "none")).prune_parents)
            parts.callback(self._stop_process)
            for container in list(self._containers.values()):
                parts.callback(container.close)

    def _stop_process(self) -> None:
        try:
            self.send("QUIT", id="")
            self._process.wait(END_TIMEOUT_SECONDS)
        except (LaunchError, subprocess.TimeoutExpired):
            self._process.kill()
            self._process.wait()
        self._reader.join(END_TIMEOUT_SECONDS)
        self._channel.close()

    # Events

    def _read(self) -> None:
        """The reader thread: every event goes to its handle."""
        while True:
            try:
                message, descriptors = self._channel.receive()
            except BadMessage as error:
                log.warning("lab's launcher: %s", error)
                continue
            except (ChannelClosed, OSError):
                break
            with self._registry:
                handle = self._handles.get(str(message["id"]))
            if handle is not None:
                handle.hear(message, descriptors)
            else:
                for descriptor in descriptors:
                    os.close(descriptor)
        self._gone = LaunchError("lab's launcher has died", detail=self._log_tail(), exit_code=125)
        with self._registry:
            for handle in self._handles.values():
                handle.lose(self._gone)
        self.when_gone()

    def _log_tail(self) -> str:
        try:
            return tail((self.scratch / "launcher.log").read_bytes())
        except OSError:
            return ""

    def register(self, identity: str, timeline: Timeline, *, survives: bool = False) -> Handle:
        """Hear of what will be started under that name. Raises LabError if there is one already."""
        handle = Handle(identity, timeline, survives=survives)
        with self._registry:
            if identity in self._handles:
                raise LabError(f"there is a container {identity} already")
            self._handles[identity] = handle
            if self._gone:
                raise self._gone
        return handle

    def forget(self, handle: Handle) -> None:
        """Hear no more of it. Idempotent."""
        with self._registry:
            self._handles.pop(handle.identity, None)
            self._containers.pop(handle.identity, None)
        handle.close()

    def _end(self, handle: Handle, cgroup: ControlGroup) -> None:
        """Kill and wait: a child that is on its way to execve too."""
        if not cgroup.directories and handle.pidfd >= 0:
            descent.kill_below(handle.pid, END_TIMEOUT_SECONDS, pidfd=handle.pidfd)
        handle.send_signal(signal.SIGKILL)
        with suppress(ExitUnknown):
            if handle.wait(END_TIMEOUT_SECONDS if handle.pidfd >= 0 else 0.0) is None:
                log.debug("container %s: no exit reported yet", handle.identity)
        cgroup.kill(END_TIMEOUT_SECONDS)
