"""A container in the foreground: its command waits for it, and hands on whatever signal it gets itself."""

from __future__ import annotations

import os

from lab.lean import signal, suppress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lab.runtime.container import Started

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


def wait(started: Started, master: int = -1) -> int:
    """The exit code of ``started``; every signal that comes meanwhile is passed on. ``master`` is its terminal's."""

    def pass_on(number: int) -> None:
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(started.pidfd, number)

    if master >= 0:
        from lab.runtime.oci import terminal

        terminal.relay(master, started.pidfd, pass_on)
    code = reaped(started.pid)
    while code is None:
        number = signal.sigwait(signal.valid_signals())
        if number == signal.SIGCHLD:
            code = reaped(started.pid)
        elif number not in NOT_PASSED_ON:
            pass_on(number)
    started.close()
    return code


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
