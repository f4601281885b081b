"""The user's terminal while a command's own, inside an instance, takes its place."""

from __future__ import annotations

import os
import signal
import subprocess
import termios
import threading
import tty
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from types import FrameType

from lab.errors import UsageError
from lab.host.terminals import size_of
from lab.model import TerminalSize

INPUT = 0
GUARD = """trap '' HUP INT QUIT TERM TSTP TTOU
saved=$(stty -g) && echo && read -r over <&"$1" || stty "$saved" """
"""Puts the terminal right when its user was killed by SIGKILL: then the pipe ends without a word."""


def wanted_size(*, interactive: bool) -> TerminalSize:
    """How large the terminal inside has to be. Raises UsageError when nobody sits at one who is to type."""
    if interactive and not os.isatty(INPUT):
        raise UsageError("the input device is not a terminal", hint="leave out -t")
    return size_of(INPUT if os.isatty(INPUT) else 1)


@contextmanager
def attached(resize: Callable[[TerminalSize], None], *, interactive: bool) -> Iterator[None]:
    """Every key, ^C too, goes inside, and so does every change of size; at the end all is as it was before.

    ``resize`` is called from a thread.
    """
    with ExitStack() as opened:
        if interactive:
            opened.enter_context(_raw())
        opened.enter_context(_watched(resize))
        yield


@contextmanager
def _raw() -> Iterator[None]:
    saved = termios.tcgetattr(INPUT)
    with _guarded():
        try:
            tty.setraw(INPUT, termios.TCSANOW)
            yield
        finally:
            with suppress(termios.error):  # it hung up
                termios.tcsetattr(INPUT, termios.TCSADRAIN, saved)


@contextmanager
def _guarded() -> Iterator[None]:
    """A process beside that restores the terminal should this one be killed."""
    read, write = os.pipe2(os.O_CLOEXEC)
    with (
        os.fdopen(write, "wb", 0) as alive,
        subprocess.Popen(
            ["/bin/sh", "-c", GUARD, "sh", str(read)],
            pass_fds=[read],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        ) as guard,
    ):
        os.close(read)
        assert guard.stdout
        guard.stdout.readline()  # it has looked at the settings by now
        try:
            yield
        finally:
            with suppress(BrokenPipeError):
                alive.write(b"over\n")


@contextmanager
def _watched(resize: Callable[[TerminalSize], None]) -> Iterator[None]:
    """Call ``resize`` at once and with every SIGWINCH: from a thread, since a handler may not wait for a lock."""
    changed = os.eventfd(1, os.EFD_CLOEXEC)
    over = False

    def follow() -> None:
        while os.eventfd_read(changed) and not over:
            resize(size_of(INPUT))

    def note(_number: int, _frame: FrameType | None) -> None:
        os.eventfd_write(changed, 1)

    thread = threading.Thread(target=follow, name="lab-winch", daemon=True)
    previous = signal.signal(signal.SIGWINCH, note)
    thread.start()
    try:
        yield
    finally:
        signal.signal(signal.SIGWINCH, previous)
        over = True
        os.eventfd_write(changed, 1)
        thread.join(1.0)
        if not thread.is_alive():
            os.close(changed)
