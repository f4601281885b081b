"""Hooks: programs of the caller's that run at points of a container's life (config.md, "POSIX-platform Hooks").

    prestart         parent   namespaces and mounts exist, the root is not entered yet     failure ends the container
    createRuntime    parent   the same moment, after prestart                              failure ends the container
    createContainer  child    the same moment; the program is the host's                   failure ends the container
    startContainer   child    after start; the program is the container's, as confined     failure ends the container
                              as the application
    poststart        runtime  the application is being executed                            failure is only told
    poststop         runtime  everything has been removed                                  failure is only told

Each gets the container's state on its standard input, the environment it was given and no other, and is killed with
its process group when its time is over. One without an environment inherits: a program of the host's the runtime's,
a program of the container's the application's. Never the other way round, as an image's LD_PRELOAD in a
createContainer hook would be (CVE-2025-23266). `lab.runtime.container` and `lab.runtime.init` run the first four,
the owner of the container's life the last two. Standard library only, and no subprocess module: see
`lab.runtime.spawner.spawner`.
"""

from __future__ import annotations

import errno
import os
import select

from lab.shims import dumps, signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from typing import Any

    Spawn = Callable[["Hook", int, int], int]  # a hook, its standard input, where its output goes: its pid

MOST_OUTPUT_BYTES = 400  # of a hook that failed, in its error
ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)  # by which whoever waits may be told to end
RESTORED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE)  # what lab's small processes ignore

Hook = dict[str, "Any"]
"""``path``, ``args``, ``env`` (None to inherit), ``timeout`` (seconds or None), as config.json has them."""


def run(name: str, hooks: Sequence[Hook], state: Mapping[str, object], spawn: Spawn | None = None) -> None:
    """Run each in order, waiting for its end. Raises OSError that names the first one that failed.

    ``state`` is the container's, with the ``pid`` as the hook's own namespaces number it. ``spawn`` starts a hook,
    with files for its standard input and its output, in a process group of its own: its pid.
    """
    for hook in hooks:
        _run_one(name, hook, dumps(dict(state)).encode(), spawn or _spawn)


def run_all(name: str, hooks: Sequence[Hook], state: Mapping[str, object]) -> list[str]:
    """Run each, whatever the others do; what failed, for a log (poststart and poststop)."""
    failed = []
    for hook in hooks:
        try:
            run(name, [hook], state)
        except OSError as error:
            failed.append(error.strerror or str(error))
    return failed


def _run_one(name: str, hook: Hook, state: bytes, spawn: Spawn) -> None:
    path = hook["path"]
    given, heard = os.memfd_create("state", os.MFD_CLOEXEC), os.memfd_create("output", os.MFD_CLOEXEC)
    try:
        os.write(given, state)
        os.lseek(given, 0, os.SEEK_SET)
        held = signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)  # till there is somebody who would kill it
        try:
            pid = spawn(hook, given, heard)
        except BaseException as error:
            signal.pthread_sigmask(signal.SIG_SETMASK, held)
            if isinstance(error, OSError):
                raise OSError(error.errno, f"{name} hook {path}: {error.strerror}") from error
            raise
        status = _wait(pid, hook.get("timeout"), held)
        if status is None:
            raise OSError(errno.ETIMEDOUT, f"{name} hook {path}: not done within {hook['timeout']} s")
        if status != 0:
            ended = f"exit code {status}" if status > 0 else f"killed by signal {-status}"
            raise OSError(errno.ECANCELED, f"{name} hook {path}: {ended}{_said(heard)}")
    finally:
        os.close(given)
        os.close(heard)


def _spawn(hook: Hook, given: int, heard: int) -> int:
    """In a process group of its own; posix_spawn(3) tells of a program that can't be executed."""
    words = list(hook.get("args") or ()) or [hook["path"]]
    given_environment = hook.get("env")
    environment = dict(os.environ)
    if given_environment is not None:
        environment = dict(entry.partition("=")[::2] for entry in given_environment)
    descriptors = [(os.POSIX_SPAWN_DUP2, old, new) for old, new in ((given, 0), (heard, 1), (heard, 2))]
    return os.posix_spawn(
        hook["path"],
        words,
        environment,
        file_actions=descriptors,
        setpgroup=0,
        setsigmask=[],
        setsigdef=RESTORED,
    )


def _wait(pid: int, timeout_seconds: float | None, held: Iterable[int]) -> int | None:
    """Its exit code, negative after a signal; None when it had to be killed because its time was over. Signals but
    those ``held`` before are let through again.
    """
    try:
        signal.pthread_sigmask(signal.SIG_SETMASK, held)
        pidfd = os.pidfd_open(pid)
        try:
            poll = select.poll()
            poll.register(pidfd, select.POLLIN)
            in_time = bool(poll.poll(None if timeout_seconds is None else timeout_seconds * 1000))
        finally:
            os.close(pidfd)
    except BaseException:  # as when whoever waits is told to end
        _kill(pid)
        os.waitpid(pid, 0)
        raise
    if not in_time:
        _kill(pid)
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status) if in_time else None


def _kill(pid: int) -> None:
    """With its process group, which it may not have made yet."""
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:
        os.kill(pid, signal.SIGKILL)


def _said(heard: int) -> str:
    """The end of its output, on one line."""
    size = os.fstat(heard).st_size
    text = os.pread(heard, MOST_OUTPUT_BYTES, max(0, size - MOST_OUTPUT_BYTES)).decode("utf-8", "replace")
    line = " ".join(text.split())
    return f": {line}" if line else ""
