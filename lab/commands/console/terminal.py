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
from typing import Any, Self

from lab.errors import UsageError
from lab.host.execution.terminals import size_of
from lab.model import TerminalSize

INPUT = 0
LOCAL = 3  # in what tcgetattr returns: local modes
GUARD = """trap '' HUP INT QUIT TERM TSTP TTOU
saved=$(stty -g <&2 2>/dev/null) && echo && read -r over || { stty "$saved" <&2 2>/dev/null; printf "$1" >&2; } """
"""Puts the terminal, its standard error, right when its user was killed by SIGKILL: then its standard input ends
without a word. In dash(1) no redirection names a descriptor of two digits.
"""
LEAVE_SCREEN = r"\033[?1049l\033[?25h"  # back from the alternate screen, with a cursor: ctlseqs of xterm(1)


def wanted_size(*, interactive: bool) -> TerminalSize:
    """How large the terminal inside has to be. Raises UsageError when nobody sits at one who is to type."""
    if interactive and not os.isatty(INPUT):
        raise UsageError("the input device is not a terminal", hint="leave out -t")
    return size_of(INPUT if os.isatty(INPUT) else 1)


class Terminal:
    """The user's, from just before a command starts until it has ended; a context manager that restores it.

    Entered, it shows keys no more and passes each on at once, while ^C is still for lab. Handed over, every key goes
    inside, ^C too, and so does every change of size. With ``screen`` something is drawn on a screen of its own
    meanwhile, which is left as well should lab be killed.
    """

    def __init__(self, *, interactive: bool, screen: bool = False) -> None:
        self._interactive = interactive
        self._screen = screen
        self._opened = ExitStack()

    def __enter__(self) -> Self:
        if self._interactive:
            saved = termios.tcgetattr(INPUT)
            with ExitStack() as undo:
                undo.enter_context(_guarded(LEAVE_SCREEN if self._screen else ""))
                undo.callback(_set, saved, termios.TCSADRAIN)
                quiet = list(saved)
                quiet[LOCAL] &= ~(termios.ECHO | termios.ICANON)
                quiet[0] &= ~termios.ICRNL
                _set(quiet, termios.TCSANOW)
                self._opened = undo.pop_all()
        return self

    def hand_over(self, resize: Callable[[TerminalSize], None]) -> None:
        """The command runs. ``resize`` is called from a thread, at once and with every change."""
        if self._interactive:
            with suppress(termios.error):
                tty.setraw(INPUT, termios.TCSANOW)
        self._opened.enter_context(_watched(resize))

    def __exit__(self, *_: object) -> None:
        self._opened.close()


def _set(settings: list[Any], when: int) -> None:
    with suppress(termios.error):  # it has hung up
        termios.tcsetattr(INPUT, when, settings)


@contextmanager
def _guarded(written: str) -> Iterator[None]:
    """A process beside that restores the terminal should this one be killed, and writes ``written`` to it, in
    printf(1)'s notation.
    """
    read, write = os.pipe2(os.O_CLOEXEC)
    with (
        os.fdopen(write, "wb", 0) as alive,
        subprocess.Popen(
            ["/bin/sh", "-c", GUARD, "sh", written],
            stdin=read,
            stdout=subprocess.PIPE,
            stderr=INPUT,
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
