"""Programs that leave a child behind: starting them, waiting for them, taking over what they leave."""

from __future__ import annotations

import logging
import os
import select
import shlex
import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path, PurePath
from typing import Protocol

from lab.errors import LabError, LaunchError
from lab.host import procstat, syscalls
from lab.host.clock import now
from lab.host.survey.patience import Deadline
from lab.model import Completed
from lab.runtime.launcher.descriptors import memory_file, pipe
from lab.runtime.launcher.handle import collect

log = logging.getLogger(__name__)

TIMEOUT_SECONDS = 30.0
KILL_SECONDS = 10.0
PAUSE_SECONDS = 0.01
RUNTIME_FAILED = 125

_adoption = threading.Lock()


def adopt(start: Callable[[], int], pid_file: Path, what: str) -> tuple[int, float, int]:
    """Let a runtime, whose pid ``start`` returns, end, and take over the child it leaves and names in ``pid_file``.

    Its exit code, when that was, and a pidfd of the child, -1 without one: from now on a child of this process,
    which can wait for it. ``what`` is what LaunchError says of it where it does not end. Only one at a time, and only
    meanwhile, is this process a subreaper (PR_SET_CHILD_SUBREAPER(2const)): other programs' orphans are for the
    host's init to reap.
    """
    with _adoption:
        syscalls.prctl(syscalls.PR_SET_CHILD_SUBREAPER, 1)
        try:
            code = wait_child(start(), TIMEOUT_SECONDS, what)
        finally:
            syscalls.prctl(syscalls.PR_SET_CHILD_SUBREAPER, 0)
    at = now()
    try:
        return code, at, own_child(int(pid_file.read_text()))
    except (OSError, ValueError, OverflowError):
        return code, at, -1


def own_child(pid: int) -> int:
    """A pidfd of a child of this process. Raises OSError for any other process, whatever a runtime says of it."""
    descriptor = os.pidfd_open(pid)
    try:
        os.waitid(os.P_PIDFD, descriptor, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def spawn(words: Sequence[str], descriptors: Sequence[int], *, environment: Mapping[str, str] | None = None) -> int:
    """Start a program with ``descriptors`` as 0, 1, 2, …; its pid. Its environment is this process's by default.

    Not by `lab.host.command`, which can neither number descriptors nor leave a program's output to another.
    """
    log.debug("+ %s", shlex.join(words))
    given = os.environ if environment is None else environment
    actions = [(os.POSIX_SPAWN_DUP2, descriptor, number) for number, descriptor in enumerate(descriptors)]
    defaults = [signal.SIGPIPE, signal.SIGXFSZ]  # which Python ignores, and execve(2) would pass on
    try:
        return os.posix_spawn(
            words[0], list(words), given, file_actions=actions, setsid=True, setsigmask=[], setsigdef=defaults
        )
    except OSError as error:
        raise LaunchError(
            f"{words[0]} can't be executed: {os.strerror(error.errno or 0)}", exit_code=RUNTIME_FAILED
        ) from error


def wait_child(pid: int, timeout_seconds: float, what: str) -> int:
    """A child's exit code. When the time runs out, of which an emulated host gets more, it is killed with all that it
    has started in its session, and LaunchError says so of ``what``.
    """
    descriptor, deadline = os.pidfd_open(pid), Deadline(timeout_seconds)
    try:
        ready = deadline.ready([descriptor])
        if not ready:
            os.killpg(pid, signal.SIGKILL)  # its own group: see `spawn`
            select.select([descriptor], [], [], KILL_SECONDS)
        code = reap(descriptor)
    finally:
        os.close(descriptor)
    if not ready or code is None:
        _reap_group(pid)
        raise LaunchError(f"{what} did not end within {deadline.seconds:g} s", exit_code=RUNTIME_FAILED)
    return code


class Begun(Protocol):
    """A command that runs in a container."""

    @property
    def pidfd(self) -> int: ...
    def wait(self, timeout_seconds: float | None = None) -> int | None: ...
    def close(self) -> None:
        """Kill it if it still runs, and let go of it."""


def complete(begin: Callable[[list[int]], Begun], what: str, stdin: bytes, timeout_seconds: float) -> Completed:
    """Run to its end what ``begin`` starts with three descriptors. Raises LabError when ``what`` takes longer, or
    writes more than `handle.MOST_BYTES` to a stream.
    """
    with ExitStack() as opened:
        source = memory_file(stdin, opened)
        (out, out_end), (err, err_end) = pipe(opened), pipe(opened)
        try:
            begun = begin([source, out_end, err_end])
        finally:
            os.close(out_end)
            os.close(err_end)
        opened.callback(begun.close)
        output = collect([out, err], begun.pidfd, timeout_seconds, what=what)
        code = begun.wait(0)
    if output is None or code is None:
        raise LabError(f"{what} did not end within {timeout_seconds:g} s")
    return Completed(exit_code=code, stdout=output[0], stderr=output[1])


def _reap_group(group: int) -> None:
    """Those of a killed group that are children of this process, while it is a subreaper."""
    deadline = time.monotonic() + KILL_SECONDS
    with suppress(ChildProcessError):
        while time.monotonic() < deadline:
            if os.waitid(os.P_PGID, group, os.WEXITED | os.WNOHANG) is None:
                time.sleep(PAUSE_SECONDS)


def in_group(group: PurePath) -> set[int]:
    """Children of this process in that cgroup or below it, those that have ended and were not waited for as well.

    A runtime that ends leaves its own children, and theirs, to a subreaper, which this process is while `adopt`
    waits. No group lists a process that has ended, which still says in which of v2 it was (cgroups(7),
    "/proc/pid/cgroup"); those of v1 are forgotten.
    """
    found = set()
    for pid in own():
        with suppress(OSError):
            if _is_in(Path("/proc", str(pid)), group):
                found.add(pid)
    return found


def own() -> set[int]:
    """The children of this process, those that have ended and were not waited for as well."""
    found = set()
    for entry in Path("/proc").iterdir():
        with suppress(OSError):
            if entry.name.isdigit() and int(procstat.fields(int(entry.name))[1]) == os.getpid():
                found.add(int(entry.name))
    return found


def _is_in(process: Path, group: PurePath) -> bool:
    paths = [line.split(":", 2)[2] for line in (process / "cgroup").read_text().splitlines()]
    # An ordinary user's lies below what was delegated, in app.slice; no other group has a session's name in its path.
    return any(f"/{group}/" in f"{path.removesuffix(' (deleted)')}/" for path in paths)


def wait_orphan(pid: int, timeout_seconds: float) -> None:
    """Let a killed process go, which a group lists no more a moment before it has ended. No error if it is gone."""
    with suppress(OSError):
        descriptor = own_child(pid)
        try:
            select.select([descriptor], [], [], timeout_seconds)
            reap(descriptor)
        finally:
            os.close(descriptor)


def reap(pidfd: int) -> int | None:
    """The exit code of a child (128 + n after signal n), or None while it lives."""
    ended = os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOHANG)
    if ended is None:
        return None
    return ended.si_status if ended.si_code == os.CLD_EXITED else 128 + ended.si_status


class Child:
    """A child of this process's, which closes it when it lets go of it."""

    def __init__(self, pidfd: int) -> None:
        self.pidfd = pidfd
        self._exit_code: int | None = None
        self._lock = threading.Lock()

    def wait(self, timeout_seconds: float | None = None) -> int | None:
        """Its exit code (128 + n after signal n), or None when the time ran out first."""
        with self._lock:
            if self._exit_code is not None or self.pidfd < 0:
                return self._exit_code
            watched = os.dup(self.pidfd)
        try:
            select.select([watched], [], [], timeout_seconds)
        finally:
            os.close(watched)
        with self._lock:
            if self._exit_code is None and self.pidfd >= 0:
                self._exit_code = reap(self.pidfd)
            return self._exit_code

    def signal(self, number: int) -> None:
        """Send it a signal. No error if it has ended."""
        with self._lock:
            if self._exit_code is None and self.pidfd >= 0:
                signal.pidfd_send_signal(self.pidfd, number)  # no error: it is not reaped yet

    def close(self) -> None:
        """Kill it if it still runs. Idempotent."""
        self.signal(signal.SIGKILL)
        self.wait(KILL_SECONDS)
        with self._lock:
            if self.pidfd >= 0:
                os.close(self.pidfd)
                self.pidfd = -1
