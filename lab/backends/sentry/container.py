"""One container of gVisor's: made by runsc, answered by a kernel of its own in user space, the Sentry.

It is made and ended as any other runtime's (`lab.backends.support.programs.ocicontainer`), but for what follows from
having a kernel of its own: a descriptor gets in by being passed on, and whoever passes it on keeps it; a terminal is
made on the host's side; a process in it has no pid on the host; and beside the Sentry, which is what the host sees of
the application, a gofer serves it files, a child of runsc's as well.

Source: runsc help run, exec, kill; gvisor.dev, Architecture Guide.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Self

from lab.backends.sentry import saved
from lab.backends.sentry.saved import SentryCheckpoint
from lab.backends.support.programs import children
from lab.backends.support.programs.children import KILL_SECONDS, RUNTIME_FAILED, TIMEOUT_SECONDS, Child
from lab.backends.support.programs.ocicontainer import FOLDER, STATUS, Made, OciContainer
from lab.errors import LabError, LaunchError
from lab.host import syscalls
from lab.host.clock import now
from lab.host.execution import terminals
from lab.host.execution.told import errno_told
from lab.host.survey.patience import Deadline
from lab.instance import INSIDE
from lab.model import Phase, TerminalSize
from lab.record import replace
from lab.runtime.config.model import ProcessConfig
from lab.runtime.launcher.descriptors import pipe
from lab.runtime.rootfs import layers

if TYPE_CHECKING:
    from lab.backends.support.programs.ociprogram import Runtime
    from lab.backends.support.shared import SharedParts
    from lab.host.cgroup.control import ControlGroup
    from lab.host.clock import Timeline
    from lab.runtime.config.model import Config
    from lab.runtime.launcher.spec import Spec
    from lab.runtime.rootfs.mounts import DirectoryRoot, OverlayRoot

PASSED = f"--pass-fd={STATUS}:{STATUS}"
EXECUTED = "0"
ROOTS_SETTINGS = "/proc/sys/net/core"
"""runsc takes a network namespace in which it sees rmem_default for the host's own, and refuses it; younger kernels
show it in each.
"""
NAMED_SECONDS = 2.0
STACK = ": goroutine "


def sandbox_of(site: SharedParts, name: str) -> int:
    """The pid of the Sentry of container ``name``. Raises OSError or ValueError when it was never told."""
    return int((site.launcher.scratch / FOLDER / name / "pid").read_text())


class SentryContainer(OciContainer):
    """A container whose system calls gVisor answers."""

    creating = ("run", "--detach", PASSED)
    namespaces = ()  # those of the application are the Sentry's to know
    leaves_others = True  # the gofer, and where the application ends at once, the processes that it ran in

    def __init__(
        self, runtime: Runtime, spec: Spec, config: Config, place: Path, cgroup: ControlGroup, timeline: Timeline
    ) -> None:
        super().__init__(runtime, spec, config, place, cgroup, timeline)
        self._by = runtime
        self._checkpoint = spec.checkpoint
        self._scratch = place.parent.parent

    @classmethod
    def launch(
        cls, runtime: Runtime, site: SharedParts, spec: Spec, stdio: Sequence[int], timeline: Timeline
    ) -> Self:
        if isinstance(spec.checkpoint, SentryCheckpoint):
            spec.checkpoint.require_safe(runtime)
        return super().launch(runtime, site, spec, stdio, timeline)

    @classmethod
    def _supervised(cls, process: ProcessConfig, terminal: TerminalSize | None) -> ProcessConfig:
        helper = (INSIDE, "init", "--report-fd", str(STATUS), "--")
        return replace(process, terminal=terminal is not None, args=(*helper, *process.args))

    def _create(self, site: SharedParts, root: OverlayRoot | DirectoryRoot, descriptors: list[int]) -> None:
        """``run``, which makes it and starts it at once: ``create`` can pass nothing on."""
        with ExitStack() as opened:
            super()._create(site, root, _given(descriptors, self._terminal, self.config.process, opened))

    def _surround(self) -> None:
        """Its network namespace, without what runsc would take for the host's; see `ROOTS_SETTINGS`."""
        path = next(each.path for each in self.config.linux.namespaces if each.type == "network")
        namespace = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            syscalls.setns(namespace, syscalls.CLONE_NEWNET)
        finally:
            os.close(namespace)
        if Path(ROOTS_SETTINGS, "rmem_default").exists():
            syscalls.mount("none", ROOTS_SETTINGS, "tmpfs", 0)

    def _making(self) -> tuple[str, ...]:
        return saved.restoring(self._checkpoint) if self._checkpoint else super()._making()

    def save(self, directory: Path) -> SentryCheckpoint:
        """Write it as it is into ``directory``, and end it; see `lab.backends.sentry.saved`. Raises LabError."""
        images = directory / "images"
        images.mkdir(mode=0o700)
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        try:
            words, log = saved.saving(images), self._place / "save.log"
            pid = self._spawn(self._words(*words, self.name, log=log), [null] * 3)
            code = children.wait_child(pid, saved.SAVE_SECONDS, f"{self.runtime} {words[0]}")
        finally:
            os.close(null)
        if code:
            raise LabError(f"{self.runtime} can't save it: {self._complaint(code, log)}", hint="start=boot")
        self.wait(KILL_SECONDS)
        upper = directory / layers.UPPER
        (layers.folder_of(self.name, self._scratch) / layers.UPPER).rename(upper)
        return SentryCheckpoint.of(images, upper, self._by)

    def _start(self, status: int, null: int) -> None:
        """It was started with `_create`; what is left is to hear whether the application was executed."""
        if self._checkpoint:  # it goes on, and executes nothing
            self.timeline.mark(Phase.RESTORED)
            return
        with self.timeline.step(self.runtime, Made.START):
            text, at = _answer(status, self._pidfd, f"container {self.name}"), now()
        if text and text != EXECUTED:
            raise self._not_executed(self.config.process.args[0], errno_told(text))
        if not text:
            code = self.wait(0) or 0
            raise LaunchError(
                f"{self.runtime} can't start container {self.name}: {self._complaint(code)}", exit_code=RUNTIME_FAILED
            )
        self.timeline.mark(Phase.EXECUTED, at)

    def _exec(self, process: ProcessConfig, stdio: Sequence[int], terminal: TerminalSize | None = None) -> Child:
        """``exec``, which stays for as long as the command runs, and ends with its code."""
        if self.wait(0) is not None:
            raise LabError(f"container {self.name} has ended")
        self._note_orphans()
        with ExitStack() as undo:
            folder = Path(tempfile.mkdtemp(prefix="exec-", dir=self._place))
            undo.callback(shutil.rmtree, folder, ignore_errors=True)
            self._write_process(folder, process, terminal)
            options = ("--process", folder / "process.json", "--internal-pid-file", folder / "pid", PASSED)
            words = self._words("exec", *options, self.name, log=folder / "log")
            status, status_end = pipe(undo)
            try:
                with ExitStack() as given:
                    streams = _given(list(stdio), terminal, process, given)
                    pid = self._spawn(words, [*streams, status_end], contains=True)
            finally:
                os.close(status_end)
            child = _Command(os.pidfd_open(pid), lambda number: self._kill(folder / "pid", number))
            undo.callback(child.close)
            text = _answer(status, child.pidfd, f"{process.args[0]} in container {self.name}")
            if text and text != EXECUTED:
                raise self._not_executed(process.args[0], errno_told(text))
            if not text:
                complaint = self._complaint(child.wait(KILL_SECONDS) or 0, folder / "log")
                raise LaunchError(
                    f"{process.args[0]} can't be executed in container {self.name}: {complaint}",
                    exit_code=RUNTIME_FAILED,
                )
            undo.pop_all()
        child.leaves = folder
        return child

    def _kill(self, pid_file: Path, number: int) -> None:
        """Send a signal to the process whose pid inside, once runsc has written it, is in that file."""
        deadline = time.monotonic() + NAMED_SECONDS
        while not (pid := pid_file.read_text() if pid_file.exists() else "") and time.monotonic() < deadline:
            time.sleep(children.PAUSE_SECONDS)
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        try:
            words = self._words("kill", "--pid", pid, self.name, str(number), log=pid_file.with_name("kill.log"))
            children.wait_child(self._spawn(words, [null] * 3), TIMEOUT_SECONDS, f"{self.runtime} kill")
        finally:
            os.close(null)

    def _complaint(self, code: int, path: Path | None = None) -> str:
        """Without the Sentry's stack, and the dump of what it was at, which follow when it could not save."""
        return super()._complaint(code, path).partition(STACK)[0]

    def _delete(self) -> None:
        super()._delete()
        shutil.rmtree(self._state, ignore_errors=True)


class _Command(Child):
    """A process inside, by the runsc that waits for it. ``leaves`` is a folder to be removed with it."""

    leaves: Path | None = None

    def __init__(self, pidfd: int, kill: Callable[[int], None]) -> None:
        super().__init__(pidfd)
        self._kill = kill

    def signal(self, number: int) -> None:
        """To the process inside. No error if it has ended."""
        if self.wait(0) is None and self.pidfd >= 0:
            self._kill(number)

    def close(self) -> None:
        if self.wait(0) is None and self.pidfd >= 0:
            with suppress(LabError):
                self._kill(signal.SIGKILL)
            if self.wait(KILL_SECONDS) is None:
                Child.signal(self, signal.SIGKILL)
        super().close()
        if self.leaves is not None:
            shutil.rmtree(self.leaves, ignore_errors=True)


def _answer(status: int, process: int, what: str) -> str:
    """What lab's helper reports, `EXECUTED` or an errno, "" when the process of that pidfd has ended without one."""
    deadline = Deadline(TIMEOUT_SECONDS)
    ready = deadline.ready([status, process])
    if not ready:
        raise LaunchError(f"{what} did not start within {deadline.seconds:g} s")
    return os.read(status, 64).decode("ascii", "replace") if status in ready else ""


def _given(
    descriptors: list[int], terminal: TerminalSize | None, process: ProcessConfig, opened: ExitStack
) -> list[int]:
    """What runsc is started with, for it to pass on. With a terminal the first of ``descriptors`` is a socket, which
    gets the master of one that is made here: what is made in the Sentry can't leave it.
    """
    if terminal is None:
        return descriptors
    master, slave = os.openpty()
    opened.callback(os.close, master)
    opened.callback(os.close, slave)
    os.fchown(slave, process.user.uid, process.user.gid)
    terminals.set_size(slave, terminal)
    with socket.socket(fileno=os.dup(descriptors[0])) as end:
        socket.send_fds(end, [b"t"], [master])
    return [slave] * 3 + descriptors[3:]
