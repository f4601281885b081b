"""The reference: the same container, made by runc.

Everything but the runtime is the same as for `lab.backends.container`: configuration, layers, network, limits,
helper, logs. `RuncContainer.launch` reads like a manager of runc's, which containerd's shim is elsewhere:

1. the group with its limits, the bundle
2. in a thread with mounts of its own: the overlay, then ``runc create``      → ISOLATED when that ends
3. ``runc start``                                                             → EXECUTED, as the helper tells

Source: OCI runtime-spec, runtime.md "Lifecycle"; runc(8), runc-create(8), runc-exec(8).
"""

from __future__ import annotations

import itertools
import json
import logging
import os
import select
import shlex
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from errno import ENOENT
from pathlib import Path
from typing import TYPE_CHECKING

from lab.backends.container import Container
from lab.errors import CommandError, LabError, LaunchError, LimitError
from lab.host import checks, syscalls
from lab.host.cgroup import ControlGroup
from lab.host.clock import Timeline, now
from lab.host.command import run
from lab.host.hierarchy import Unused
from lab.host.ledger import Kind, Resource
from lab.inside import build as inside
from lab.instance import INSIDE, Parity
from lab.model import Check, Completed, Phase
from lab.runtime import bundle, roots, translate
from lab.runtime.config import Config, User, to_json
from lab.runtime.launcher import Spec, beside
from lab.runtime.mounts import DirectoryRoot, OverlayRoot

if TYPE_CHECKING:
    from lab.backends.host import Contained
    from lab.backends.site import Site

log = logging.getLogger(__name__)

RUNC = checks.Tool(program="runc", package="runc", required_by=("runc",))
TIMEOUT_SECONDS = 30.0
KILL_SECONDS = 10.0
STATUS = 3  # in the container: the first descriptor that --preserve-fds lets through
NOT_FOUND, NOT_EXECUTABLE, RUNTIME_FAILED = 127, 126, 125

_adoption = threading.Lock()


class Runc(Container):
    """lab's container, but for the runtime that makes it."""

    name = "runc"
    title = "container (runc)"
    mechanism = "the same container as lab's, made by runc, the runtime that Docker and Kubernetes use"
    reference = True
    order = 30
    parity = Parity(
        differences=(
            *Container.parity.differences,
            "runc's own short-lived processes run outside the container's cgroup: its CPU figures leave them out.",
            "The moment its first process runs can't be seen from outside: the phase before execve includes it.",
            "runc joins every cgroup hierarchy of the host, and always allows the device /dev/net/tun (runc 1.1).",
        )
    )

    def __init__(self, site: Site) -> None:
        super().__init__(site)
        self._listed = False
        self._lock = threading.Lock()

    @classmethod
    def check(cls) -> list[Check]:
        return [*super().check(), checks.tool(RUNC)]

    def _contain(self, spec: Spec, stdout: int, stderr: int, timeline: Timeline) -> Contained:
        with self._lock:
            if not self._listed:  # before the first: what runc makes beyond the hierarchies of lab's
                self.site.session.record(Resource(kind=Kind.OTHER_CGROUP, name=f"lab/{self.site.session.id}"))
                self._listed = True
        return RuncContainer.launch(self.site, spec, stdout, stderr, timeline)


class RuncContainer:
    """One container of runc's: what `lab.runtime.launcher.Container` is for lab's own runtime."""

    def __init__(self, spec: Spec, config: Config, place: Path, cgroup: ControlGroup, timeline: Timeline) -> None:
        self.name = spec.name
        self.config = config
        self.cgroup = cgroup
        self.timeline = timeline
        self._program = checks.tool(RUNC).found
        self._place = place
        self._pidfd = -1
        self._exit_code: int | None = None
        self._reaping = threading.Lock()
        self._closing = threading.Lock()
        self._owned = ExitStack()
        self._executions = itertools.count(1)

    @classmethod
    def launch(cls, site: Site, spec: Spec, stdout: int, stderr: int, timeline: Timeline) -> RuncContainer:
        """Start it and return once the application has been executed; see `lab.runtime.launcher.Launcher.launch`."""
        with ExitStack() as undo:
            path, limits = f"lab/{site.session.id}/{spec.name}", translate.limits(spec.config)
            cgroup = ControlGroup.create(path, limits)
            undo.callback(cgroup.remove, keep_parents=True)
            undo.callback(ControlGroup.open(path, hierarchies=Unused.detect()).remove, keep_parents=True)
            held = cgroup.effective_limits()
            place = site.launcher.scratch / "runc" / spec.name
            place.mkdir(parents=True)
            undo.callback(shutil.rmtree, place)
            config = _with_helper(spec)
            root = roots.prepare(spec.root, spec.name, config.mounts, site.launcher.scratch, undo)
            bundle.write(_supervised(config), place, root=root.target, cgroups_path=f"/{path}")
            container = cls(spec, config, place, cgroup, timeline)
            undo.callback(container._end)
            status, status_end = os.pipe2(os.O_CLOEXEC)
            undo.callback(os.close, status)
            try:
                container._create(site, root, [stdout, stderr, status_end])
            finally:
                os.close(status_end)
            if cgroup.effective_limits() != held:
                raise LimitError(f"runc set other limits than {held}: {cgroup.effective_limits()}")
            container._start(status)
            container._owned = undo.pop_all()
        return container

    def _create(self, site: Site, root: OverlayRoot | DirectoryRoot, descriptors: list[int]) -> None:
        """``runc create``: when it has ended, the container exists and waits, and is a child of this process."""
        words = self._words(
            "create", "--bundle", self._place, "--pid-file", self._place / "pid", "--preserve-fds", "1", self.name
        )

        def in_mounts_of_its_own() -> int:
            """What a thread unshares is its own (unshare(2)), and what it starts inherits that."""
            syscalls.unshare(syscalls.CLONE_NEWNS)
            syscalls.mount("none", "/", "", syscalls.MS_REC | syscalls.MS_PRIVATE)
            root.mount()
            return spawn(words, descriptors)

        with adoption():
            with ThreadPoolExecutor(1, "lab-runc") as thread:
                pid = thread.submit(in_mounts_of_its_own).result()
            site.session.process(pid)
            code = wait_child(pid, TIMEOUT_SECONDS)
            at = now()
            with suppress(FileNotFoundError, ValueError):
                self._pidfd = os.pidfd_open(int((self._place / "pid").read_text()))
        if code != 0 or self._pidfd < 0:
            raise LaunchError(
                f"runc can't create container {self.name}: {self._complaint()}", exit_code=RUNTIME_FAILED
            )
        self.timeline.mark(Phase.ISOLATED, at)

    def _start(self, status: int) -> None:
        """``runc start``; the helper's status pipe reaches its end when the application is executed."""
        with Path(os.devnull).open("wb") as null:
            pid = spawn(self._words("start", self.name), [null.fileno(), null.fileno()])
        starting = os.pidfd_open(pid)
        try:
            text = self._read_status(status, starting)
            at = now()
        finally:
            os.close(starting)
            code = wait_child(pid, TIMEOUT_SECONDS)
        program = self.config.process.args[0]
        if text:
            number = int(text)
            raise LaunchError(
                f"container {self.name}: execve: {program}: {os.strerror(number)}",
                exit_code=NOT_FOUND if number == ENOENT else NOT_EXECUTABLE,
                hint="does the image hold that program?",
            )
        if code != 0 or self._errors():
            raise LaunchError(
                f"runc can't start container {self.name}: {self._complaint()}", exit_code=RUNTIME_FAILED
            )
        self.timeline.mark(Phase.EXECUTED, at)

    def _read_status(self, status: int, starting: int) -> bytes:
        """Everything the helper says, until its end, or until ``runc start`` has failed without reaching it."""
        deadline = time.monotonic() + TIMEOUT_SECONDS
        text, watched = b"", [status, starting]
        while True:
            ready, _, _ = select.select(watched, [], [], max(0.0, deadline - time.monotonic()))
            if status in ready:
                part = os.read(status, 64)
                if not part:
                    return text
                text += part
            elif ready:
                watched.remove(starting)
                if self._errors():
                    return text
            else:
                raise LaunchError(f"container {self.name} did not start within {TIMEOUT_SECONDS:g} s")

    def execute(self, argv: Sequence[str], *, stdin: bytes = b"", timeout_seconds: float = 30.0) -> Completed:
        """``runc exec`` as root, with the container's own bounding set, filter and limits. See `Instance.execute`."""
        if self.wait(0) is not None:
            raise LabError(f"container {self.name} has ended")
        with tempfile.TemporaryDirectory(dir=self._place) as name:
            folder = Path(name)
            process = beside(self.config, argv, User(uid=0, gid=0), "/")
            whole = to_json(replace(self.config, process=process))
            (folder / "process.json").write_text(json.dumps(whole["process"]))
            arguments = ("--process", folder / "process.json", "--pid-file", folder / "pid", self.name)
            try:
                done = run(
                    self._words("exec", *arguments, log=folder / "log"),
                    timeout_seconds=timeout_seconds, check=False, stdin=stdin,
                )  # fmt: skip
            except CommandError as error:
                self._kill_command(folder / "pid")
                raise LabError(
                    f"{argv[0]} in container {self.name} did not end within {timeout_seconds:g} s"
                ) from error
            if errors := self._errors(folder / "log"):
                raise LaunchError(
                    f"{argv[0]} can't be executed in container {self.name}: {errors[-1]}",
                    exit_code=NOT_EXECUTABLE if "permission denied" in errors[-1] else NOT_FOUND,
                    hint="does the image hold that program?",
                )
        return done

    def _kill_command(self, pid_file: Path) -> None:
        """runc itself is dead by now; its child is killed as long as it is this container's."""
        with suppress(FileNotFoundError, ValueError, ProcessLookupError):
            descriptor = os.pidfd_open(pid := int(pid_file.read_text()))
            try:
                if pid in self.cgroup.processes():
                    signal.pidfd_send_signal(descriptor, signal.SIGKILL)
            finally:
                os.close(descriptor)

    def wait(self, timeout_seconds: float | None = None) -> int | None:
        """The application's exit code (128 + n after signal n), or None when the time ran out first."""
        if self._exit_code is None and self._pidfd >= 0:
            select.select([self._pidfd], [], [], timeout_seconds)
            with self._reaping:
                if self._exit_code is None:
                    self._exit_code = reap(self._pidfd)
        return self._exit_code

    def signal(self, number: int) -> None:
        """To its first process, which forwards it. No error if it has ended."""
        with self._reaping:
            if self._pidfd >= 0 and self._exit_code is None:
                with suppress(ProcessLookupError):
                    signal.pidfd_send_signal(self._pidfd, number)

    def close(self) -> None:
        """Kill what still runs and remove everything that was made for it, verified. Idempotent."""
        with self._closing:
            self._owned.close()

    def _end(self) -> None:
        """Killed and reaped here, its parent, then ``runc delete``, as a shim does it: runc itself can't reap it."""
        self.signal(signal.SIGKILL)
        self.cgroup.kill(KILL_SECONDS)
        if self._pidfd >= 0:
            self.wait(KILL_SECONDS)
            os.close(self._pidfd)
            self._pidfd = -1
        run(self._words("delete", "--force", self.name), timeout_seconds=TIMEOUT_SECONDS, hint="lab clean")

    def _words(self, verb: str, *arguments: str | Path, log: Path | None = None) -> list[str]:
        options = ["--root", self._place / "state", "--log", log or self._place / "log", "--log-format", "json"]
        return [str(word) for word in (self._program, *options, verb, *arguments)]

    def _errors(self, path: Path | None = None) -> list[str]:
        """What runc complained about (runc(8), --log-format json)."""
        with suppress(FileNotFoundError):
            lines = (path or self._place / "log").read_text().splitlines()
            return [line["msg"] for line in map(json.loads, lines) if line["level"] in ("error", "fatal")]
        return []

    def _complaint(self) -> str:
        return (self._errors() or ["it gave no reason"])[-1]


def _with_helper(spec: Spec) -> Config:
    helper = bundle.bind(inside.program().parent, str(Path(INSIDE).parent))
    return replace(spec.config, mounts=(*spec.config.mounts, helper))


def _supervised(config: Config) -> Config:
    """With lab's helper in front as PID 1, as lab's own runtime puts it."""
    words = (INSIDE, "init", "--status-fd", str(STATUS), "--", *config.process.args)
    return replace(config, process=replace(config.process, args=words))


@contextmanager
def adoption() -> Iterator[None]:
    """Whoever loses its parent below this process meanwhile becomes its child, and can be waited for.

    Only meanwhile (PR_SET_CHILD_SUBREAPER(2const)): other programs' orphans are for the host's init to reap.
    """
    with _adoption:
        syscalls.prctl(syscalls.PR_SET_CHILD_SUBREAPER, 1)
        try:
            yield
        finally:
            syscalls.prctl(syscalls.PR_SET_CHILD_SUBREAPER, 0)


def spawn(words: list[str], descriptors: Sequence[int]) -> int:
    """Start a program with /dev/null as its input and ``descriptors`` as 1, 2, …; its pid.

    Not by `lab.host.command`, which can neither number descriptors nor leave a program's output to another.
    """
    log.debug("+ %s", shlex.join(words))
    actions: list[tuple[int, ...] | tuple[int, int, str, int, int]] = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0)
    ]
    actions += [(os.POSIX_SPAWN_DUP2, descriptor, number) for number, descriptor in enumerate(descriptors, 1)]
    defaults = [signal.SIGPIPE, signal.SIGXFSZ]  # which Python ignores, and execve(2) would pass on
    return os.posix_spawn(
        words[0], words, os.environ, file_actions=actions, setsid=True, setsigmask=[], setsigdef=defaults
    )


def wait_child(pid: int, timeout_seconds: float) -> int:
    """A child's exit code; killed, and LaunchError, when the time runs out."""
    descriptor = os.pidfd_open(pid)
    try:
        ready, _, _ = select.select([descriptor], [], [], timeout_seconds)
        if not ready:
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)
            select.select([descriptor], [], [], KILL_SECONDS)
        code = reap(descriptor)
    finally:
        os.close(descriptor)
    if not ready or code is None:
        raise LaunchError(f"runc did not end within {timeout_seconds:g} s", exit_code=RUNTIME_FAILED)
    return code


def reap(pidfd: int) -> int | None:
    """The exit code of a child (128 + n after signal n), or None while it lives."""
    ended = os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOHANG)
    if ended is None:
        return None
    return ended.si_status if ended.si_code == os.CLD_EXITED else 128 + ended.si_status
