"""Containers for the rest of lab: start, wait, signal, run a command beside, remove and verify.

`Launcher` is the client of the small process in `lab.runtime.spawner`, which does the forking. A `Container`
owns what was made for it: its control group, its scratch layers, its processes. All of it is safe to use from
several threads, and many containers may start, run and end at the same time.
"""

from __future__ import annotations

import logging
import os
import selectors
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Self

import lab
from lab.errors import LabError, LaunchError
from lab.host.cgroup import ControlGroup
from lab.host.clock import Timeline
from lab.host.command import tail
from lab.inside import build as inside
from lab.model import Completed, Phase
from lab.runtime import bundle, devices, translate
from lab.runtime.channel import Channel, ChannelClosed, Message
from lab.runtime.config import Capabilities, Config, ProcessConfig, User
from lab.runtime.init import RUNTIME_FAILED
from lab.runtime.mounts import DirectoryRoot, Operation, OverlayRoot
from lab.runtime.plan import INSIDE, shallow

log = logging.getLogger(__name__)

START_TIMEOUT_SECONDS = 30.0
END_TIMEOUT_SECONDS = 10.0
STARTED = (Phase.ISOLATED, Phase.INIT, Phase.EXECUTED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Overlay:
    """An overlay as the root: ``lower`` directories top first, and where writes go.

    Without ``upper`` and ``work`` the writes go to a scratch folder that is removed with the container.
    """

    lower: tuple[Path, ...]
    upper: Path | None = None
    work: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Directory:
    """A plain directory as the root; writes change it."""

    path: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """One container to start.

    ``name`` is unique in the session. ``init`` puts lab's helper in front as PID 1. ``hold`` stops before the
    application is executed, until `Container.proceed`. ``fail_at`` names a `lab.runtime.plan.Step` to fail at:
    how tests prove that nothing is left behind.
    """

    name: str
    config: Config
    root: Overlay | Directory
    init: bool = True
    hold: bool = False
    fail_at: str = ""


class Handle:
    """What the client knows of one process of the spawner's; filled in by the reader thread."""

    def __init__(self, identity: str, timeline: Timeline) -> None:
        self.identity = identity
        self.timeline = timeline
        self.pid = 0
        self.pidfd = -1
        self.isolated = False
        self.executed = False
        self.exit_code: int | None = None
        self.failure: LaunchError | None = None
        self._changed = threading.Condition()

    def hear(self, message: Message, descriptors: list[int]) -> None:
        """One event from the spawner."""
        with self._changed:
            if descriptors and self.pidfd < 0:
                self.pidfd = descriptors.pop()
                self.pid = int(str(message["pid"]))
            stamps = message.get("stamps")
            for phase in STARTED:
                if isinstance(stamps, dict) and phase in stamps:
                    self.timeline.mark(phase, stamps[phase])
            name = message["message"]
            if name == "FAILED":
                code = int(str(message["code"]))
                self.failure = LaunchError(
                    f"container {self.identity}: {message['step']}: {message['text']}",
                    exit_code=code,
                    hint="" if code == RUNTIME_FAILED else "does the image hold that program?",
                )
                self.exit_code = code
            elif name == "EXITED":
                self.exit_code = int(str(message["code"]))
            self.isolated = self.isolated or name in ("ISOLATED", "EXECUTED")
            self.executed = self.executed or name == "EXECUTED"
            self._changed.notify_all()
        for descriptor in descriptors:
            os.close(descriptor)

    def lose(self, error: LaunchError) -> None:
        """The spawner is gone, and with it every process it started."""
        with self._changed:
            if self.exit_code is None:
                self.failure = None if self.executed else error
                self.exit_code = 128 + signal.SIGKILL
            self._changed.notify_all()

    def wait_started(self, *, isolated_is_enough: bool) -> None:
        """Until the application is executed. Raises LaunchError when it could not be."""
        with self._changed:
            started = self._changed.wait_for(
                lambda: self.executed or self.failure or (self.isolated and isolated_is_enough), START_TIMEOUT_SECONDS
            )
            if self.failure is not None:
                raise self.failure
        if not started:
            raise LaunchError(f"container {self.identity} did not start within {START_TIMEOUT_SECONDS:g} s")

    def wait(self, timeout_seconds: float | None) -> int | None:
        """The exit code, or None when the time ran out first."""
        with self._changed:
            self._changed.wait_for(lambda: self.exit_code is not None, timeout_seconds)
            return self.exit_code

    def send_signal(self, number: int) -> None:
        """To this very process: a pidfd never names a later one with the same number."""
        with self._changed:
            if self.pidfd >= 0 and self.exit_code is None:
                try:
                    signal.pidfd_send_signal(self.pidfd, number)
                except ProcessLookupError:
                    pass

    def close(self) -> None:
        with self._changed:
            if self.pidfd >= 0:
                os.close(self.pidfd)
                self.pidfd = -1


class Container:
    """One running container. A context manager: leaving it kills, removes and verifies."""

    def __init__(self, launcher: Launcher, spec: Spec, cgroup: ControlGroup, handle: Handle) -> None:
        self.name = spec.name
        self.spec = spec
        self.cgroup = cgroup
        self._launcher = launcher
        self._handle = handle
        self._owned = ExitStack()
        self._closing = threading.Lock()
        self._executions = 0

    @property
    def pid(self) -> int:
        """Its first process, as the host numbers it."""
        return self._handle.pid

    @property
    def timeline(self) -> Timeline:
        return self._handle.timeline

    def proceed(self) -> None:
        """Let a held container execute its application. Raises LaunchError when that fails."""
        self._launcher.send("PROCEED", id=self._handle.identity)
        self._handle.wait_started(isolated_is_enough=False)

    def wait(self, timeout_seconds: float | None = None) -> int | None:
        """The application's exit code (128 + n after signal n), or None when the time ran out first."""
        return self._handle.wait(timeout_seconds)

    def signal(self, number: int) -> None:
        """Send a signal to the application (to its first process, which forwards it). No error if it has ended."""
        self._handle.send_signal(number)

    def kill(self) -> None:
        """SIGKILL to everything in the container; returns when it is dead. Idempotent."""
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
        directory: str = "/",
    ) -> Completed:
        """Run one more command behind the same boundary: namespaces, cgroups, root, rlimits, capabilities,
        no_new_privs, seccomp.

        Raises LaunchError when it can't be executed, LabError when it does not end in time; it is then killed.
        """
        if self._handle.exit_code is not None:
            raise LabError(f"container {self.name} has ended")
        self._executions += 1
        process = beside(self.spec.config, argv, User(uid=uid, gid=gid), directory)
        return self._launcher.run_beside(
            f"{self.name}/{self._executions}", self, process, stdin=stdin, timeout_seconds=timeout_seconds
        )

    def close(self) -> None:
        """Kill what still runs and remove everything that was made for it, verified. Idempotent.

        Raises LabError if something survives.
        """
        with self._closing:
            self._owned.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def own(self, resources: ExitStack) -> None:
        """Take over what was made for it."""
        self._owned = resources.pop_all()


class Launcher:
    """One session's containers. Start it before the heavy imports, close it last."""

    def __init__(self, session: str, scratch: Path, process: subprocess.Popen[bytes], channel: Channel) -> None:
        self.session = session
        self.scratch = scratch
        self._process = process
        self._channel = channel
        self._sending = threading.Lock()
        self._handles: dict[str, Handle] = {}
        self._containers: dict[str, Container] = {}
        self._registry = threading.Lock()
        self._gone: LaunchError | None = None
        self._reader = threading.Thread(target=self._read, name="lab-launcher", daemon=True)
        self._reader.start()

    @classmethod
    def start(cls, session: str, scratch: Path, *, cleanup: Sequence[str] = ()) -> Launcher:
        """Start the small process; it is ready some 40 ms later, and requests wait for it meanwhile.

        ``scratch`` is a folder of the session's own, made here and removed at the end. ``cleanup`` is a command
        (its first word an absolute path) that the small process runs if this process dies without `close`.
        """
        (scratch / "root").mkdir(parents=True)
        ours, theirs = Channel.pair()
        ours.allow_large_messages()
        source = Path(lab.__file__).parent.parent
        code = f"import sys; sys.path.insert(0, {str(source)!r}); from lab.runtime import spawner; spawner.command()"
        interpreter = getattr(sys, "_base_executable", "") or sys.executable
        words = [interpreter, "-I", "-S", "-c", code, str(theirs.fileno()), session, str(scratch), *cleanup]
        with (scratch / "launcher.log").open("wb") as errors:
            process = subprocess.Popen(
                words,
                stdin=subprocess.DEVNULL,
                stdout=errors,
                stderr=errors,
                pass_fds=[theirs.fileno()],
                cwd="/",
                start_new_session=True,
            )
        theirs.close()
        return cls(session, scratch, process, ours)

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
        INIT and EXECUTED. Raises LaunchError with Docker's exit code, 125, 126 or 127, and LimitError; nothing
        is left behind then.
        """
        timeline = timeline or Timeline()
        timeline.mark(Phase.REQUESTED)
        with ExitStack() as undo:
            cgroup = ControlGroup.create(f"lab/{self.session}/{spec.name}", translate.limits(spec.config))
            undo.callback(cgroup.remove, keep_parents=True)
            devices.guard(cgroup, spec.config.linux.resources.devices)
            root = self._root(spec, undo)
            plan = translate.plan(
                _with_helper(spec),
                root,
                name=spec.name,
                cgroup_procs=[str(directory / "cgroup.procs") for directory in cgroup.directories],
                cgroup_controllers=_shown_controllers(cgroup),
                init=spec.init,
                hold=spec.hold,
                fail_at=spec.fail_at,
            )
            handle = self._register(spec.name, timeline)
            undo.callback(self._forget, handle)
            undo.callback(self._end, handle, cgroup)
            container = Container(self, spec, cgroup, handle)
            with _null_unless(stdin) as source:
                self.send("LAUNCH", id=spec.name, plan=plan.to_json(), descriptors=[source, stdout, stderr])
            handle.wait_started(isolated_is_enough=spec.hold)
            container.own(undo)
        with self._registry:
            self._containers[spec.name] = container
        return container

    def run_beside(
        self, identity: str, container: Container, process: ProcessConfig, *, stdin: bytes, timeout_seconds: float
    ) -> Completed:
        """See `Container.execute`."""
        config = container.spec.config
        plan = translate.process_plan(config, init=container.spec.init, process=process)
        handle = self._register(identity, Timeline())
        with ExitStack() as opened:
            opened.callback(self._forget, handle)
            source = _memory_file(stdin, opened)
            (out, out_end), (err, err_end) = _pipe(opened), _pipe(opened)
            root = os.open(f"/proc/{container.pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            opened.callback(os.close, root)
            self.send(
                "EXECUTE",
                id=identity,
                process=shallow(plan),
                namespaces=translate.joined_flags(config),
                cgroup_procs=[str(directory / "cgroup.procs") for directory in container.cgroup.directories],
                descriptors=[source, out_end, err_end, container._handle.pidfd, root],
            )
            os.close(out_end)
            os.close(err_end)
            opened.callback(handle.send_signal, signal.SIGKILL)
            handle.wait_started(isolated_is_enough=False)
            output = _collect([out, err], handle, timeout_seconds)
            if output is None:
                handle.send_signal(signal.SIGKILL)
            code = handle.wait(END_TIMEOUT_SECONDS)
        if output is None or code is None:
            raise LabError(
                f"{process.args[0]} in container {container.name} did not end within {timeout_seconds:g} s"
            )
        return Completed(exit_code=code, stdout=output[0], stderr=output[1])

    def send(self, name: str, *, descriptors: Sequence[int] = (), **fields: object) -> None:
        """One request to the small process. Raises LaunchError when it is gone."""
        try:
            with self._sending:
                self._channel.send(name, descriptors=descriptors, **fields)
        except (ChannelClosed, OSError) as error:
            raise self._gone or LaunchError(f"lab's launcher can't be reached: {error}", exit_code=125) from error

    def close(self) -> None:
        """Close every container, end the small process, remove the scratch folder. Idempotent.

        Each part is tried even if another fails; the first error is raised.
        """
        with ExitStack() as parts:
            parts.callback(shutil.rmtree, self.scratch, ignore_errors=True)
            parts.callback(ControlGroup.open(f"lab/{self.session}/none").prune_parents)
            parts.callback(self._stop_process)
            for container in list(self._containers.values()):
                parts.callback(container.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

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

    def _log_tail(self) -> str:
        try:
            return tail((self.scratch / "launcher.log").read_bytes())
        except OSError:
            return ""

    def _register(self, identity: str, timeline: Timeline) -> Handle:
        handle = Handle(identity, timeline)
        with self._registry:
            if identity in self._handles:
                raise LabError(f"there is a container {identity} already")
            self._handles[identity] = handle
            if self._gone:
                raise self._gone
        return handle

    def _forget(self, handle: Handle) -> None:
        with self._registry:
            self._handles.pop(handle.identity, None)
            self._containers.pop(handle.identity, None)
        handle.close()

    def _end(self, handle: Handle, cgroup: ControlGroup) -> None:
        """Kill and wait: a child that is on its way to execve too."""
        handle.send_signal(signal.SIGKILL)
        if handle.wait(END_TIMEOUT_SECONDS if handle.pidfd >= 0 else 0.0) is None:
            log.debug("container %s: no exit reported yet", handle.identity)
        cgroup.kill(END_TIMEOUT_SECONDS)

    # Roots

    def _root(self, spec: Spec, undo: ExitStack) -> Operation:
        """The root to be mounted on the one mount point that all containers share: each has its own namespace."""
        mount_point = str(self.scratch / "root")
        if isinstance(spec.root, Directory):
            return DirectoryRoot(target=mount_point, source=str(spec.root.path))
        upper, work = spec.root.upper, spec.root.work
        if upper is None or work is None:
            own = self.scratch / "layers" / spec.name
            upper, work = own / "upper", own / "work"
            undo.callback(shutil.rmtree, own)
            upper.mkdir(parents=True)
            work.mkdir()
        lower = (*spec.root.lower, self._skeleton(spec))
        return OverlayRoot(target=mount_point, lower=tuple(map(str, lower)), upper=str(upper), work=str(work))

    def _skeleton(self, spec: Spec) -> Path:
        """A lowest layer with every mount point, so that none has to be made in the layer that keeps writes."""
        targets = sorted(
            (_target(mount.destination), _is_directory(mount.source, mount.options))
            for mount in _with_helper(spec).mounts
            if not mount.destination.startswith(("/dev/", "/sys/", "/proc/"))
        )
        place = self.scratch / "skeletons" / f"{abs(hash(tuple(targets))):x}"
        for target, directory in targets:
            point = place / target
            if directory:
                point.mkdir(parents=True, exist_ok=True)
            else:
                point.parent.mkdir(parents=True, exist_ok=True)
                point.touch()
        return place


def beside(config: Config, argv: Sequence[str], user: User, directory: str) -> ProcessConfig:
    """Another process of the same container: root gets the container's bounding set, another user nothing."""
    bounding = config.process.capabilities.bounding
    granted = bounding if user.uid == 0 else ()
    sets = Capabilities(bounding=bounding, effective=granted, permitted=granted)
    return replace(config.process, args=tuple(argv), user=user, capabilities=sets, cwd=directory)


def _with_helper(spec: Spec) -> Config:
    if not spec.init:
        return spec.config
    helper = bundle.bind(inside.program().parent, str(Path(INSIDE).parent))
    return replace(spec.config, mounts=(*spec.config.mounts, helper))


def _shown_controllers(cgroup: ControlGroup) -> tuple[str, ...]:
    """The v1 controllers the container is placed by; none on v2."""
    joined = cgroup.hierarchies.joined()
    return tuple(name for name, mount in cgroup.hierarchies.v1.items() if mount in joined)


def _target(destination: str) -> str:
    return destination.strip("/")


def _is_directory(source: str, options: Sequence[str]) -> bool:
    return not ({"bind", "rbind"} & set(options)) or Path(source).is_dir()


def _pipe(opened: ExitStack) -> tuple[int, int]:
    """A pipe whose read end is closed with ``opened``; the write end is the caller's to close."""
    read, write = os.pipe2(os.O_CLOEXEC)
    opened.callback(os.close, read)
    return read, write


def _memory_file(content: bytes, opened: ExitStack) -> int:
    """A descriptor to read ``content`` from, without a thread to feed a pipe."""
    descriptor = os.memfd_create("stdin", os.MFD_CLOEXEC)
    opened.callback(os.close, descriptor)
    with os.fdopen(os.dup(descriptor), "wb") as file:
        file.write(content)
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor


@contextmanager
def _null_unless(descriptor: int | None) -> Iterator[int]:
    """``descriptor``, or /dev/null for as long as it is needed."""
    if descriptor is not None:
        yield descriptor
        return
    null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield null
    finally:
        os.close(null)


def _collect(pipes: list[int], handle: Handle, timeout_seconds: float) -> list[bytes] | None:
    """What comes out of ``pipes`` until the process has ended, or None when the time runs out first.

    The end of the process counts, not of the pipes: a daemon it left behind may hold them for ever.
    """
    deadline = time.monotonic() + timeout_seconds
    output: dict[int, bytearray] = {pipe: bytearray() for pipe in pipes}
    with selectors.DefaultSelector() as selector:
        for descriptor in (*pipes, handle.pidfd):
            selector.register(descriptor, selectors.EVENT_READ)
        ended = False
        while True:
            remaining = 0.0 if ended else deadline - time.monotonic()
            if remaining < 0:
                return None
            ready = [key.fd for key, _ in selector.select(remaining)]
            for descriptor in ready:
                if descriptor == handle.pidfd:
                    ended = True
                    selector.unregister(descriptor)
                    continue
                data = os.read(descriptor, 1 << 16)
                output[descriptor] += data
                if not data:
                    selector.unregister(descriptor)
            if ended and not set(ready) & set(pipes):
                return [bytes(output[pipe]) for pipe in pipes]
