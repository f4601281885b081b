"""A container in the foreground: its command waits for it, and hands on whatever signal it gets itself.

A command that waits for long needs little for that: it starts itself again, as ``await``, without what it took to
make a container. The container's process stays its child, and signals that come meanwhile stay pending (execve(2)).
"""

from __future__ import annotations

import os
import sys

from lab.shims import signal, suppress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from lab.runtime.container import Started
    from lab.runtime.oci.main import Call

PATIENCE_SECONDS = 1.0

SIGNALED = 128  # an exit code above says which signal ended a program (bash(1), EXIT STATUS)
NOT_PASSED_ON = (signal.SIGCHLD, signal.SIGKILL, signal.SIGSTOP, signal.SIGURG, signal.SIGPIPE)


class signals_held:  # noqa: N801
    """Within, signals wait for `wait`: one that arrives while a container is made is passed on to it."""

    def __init__(self, wanted: bool) -> None:
        self._wanted = wanted

    def __enter__(self) -> None:
        if self._wanted:
            self._before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())

    def __exit__(self, *_error: object) -> None:
        if self._wanted:
            signal.pthread_sigmask(signal.SIG_SETMASK, self._before)


def wait(started: Started, master: int = -1, impatient: Callable[[], None] | None = None) -> int:
    """The exit code of ``started``; every signal that comes meanwhile is passed on. ``master`` is its terminal's.

    ``impatient`` is called when it takes long, to go on in a smaller way. Whatever it raises, nobody waits for
    ``started`` any more, and it is killed.
    """
    try:
        if master >= 0:
            from lab.runtime.oci.waiting import terminal

            terminal.relay(master, started.pidfd, lambda number: pass_on(number, started.pidfd))
        code = until_ended(started.pid, started.pidfd, impatient)
    except BaseException:
        started.kill()
        raise
    started.close()
    return code


def until_ended(pid: int, pidfd: int, impatient: Callable[[], None] | None = None) -> int:
    """The exit code of the child ``pid``. All signals are blocked, so that each is taken here."""
    while (code := reaped(pid)) is None:
        if impatient is not None:
            taken = signal.sigtimedwait(signal.valid_signals(), PATIENCE_SECONDS)
            if taken is None:
                impatient()
                impatient = None
                continue
            number = taken.si_signo
        else:
            number = signal.sigwait(signal.valid_signals())
        if number not in NOT_PASSED_ON:
            pass_on(number, pidfd)
    return code


def pass_on(number: int, pidfd: int) -> None:
    with suppress(ProcessLookupError):
        signal.pidfd_send_signal(pidfd, number)


def start_again(call: Call, identity: str, started: Started, *, keep: bool) -> None:
    """Go on as ``await``. Returns only if that can't be done: then this process waits as it is."""
    os.set_inheritable(started.pidfd, True)
    words = [sys.executable, "-IS", sys.argv[0], "--root", call.root, *call.log.words, "await"]
    given = ["--keep"] if keep else []
    with suppress(OSError):
        os.execv(sys.executable, [*words, *given, identity, str(started.pid), str(started.pidfd)])
    os.set_inheritable(started.pidfd, False)


def reaped(pid: int) -> int | None:
    """The exit code of ``pid`` if it has ended. Whatever else ended was left to us by somebody who went first."""
    code = None
    with suppress(ChildProcessError):
        while True:
            ended, status = os.waitpid(-1, os.WNOHANG)
            if ended == 0:
                break
            if ended == pid:
                code = exit_code(status)
    return code


def exit_code(status: int) -> int:
    """As a shell tells it: 128 + n after signal n."""
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else SIGNALED - code
