"""Between the terminal a command was started from and a container's own, while the command waits for it."""

from __future__ import annotations

import errno
import fcntl
import os
import select
import termios

from lab.shims import signal, suppress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

PIECE_BYTES = 1 << 16
EMPTY_SIZE = bytes(8)  # struct winsize
IN, OUT = 0, 1
IFLAG, OFLAG, CFLAG, LFLAG, CC = 0, 1, 2, 3, 6  # of termios.tcgetattr


class Raw:
    """Within, the caller's terminal passes every key on as it is: the container's own makes sense of them."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._before: list[Any] | None = None

    def __enter__(self) -> None:
        if not os.isatty(self._descriptor):
            return
        self._before = termios.tcgetattr(self._descriptor)
        raw = termios.tcgetattr(self._descriptor)
        raw[IFLAG] &= ~(termios.BRKINT | termios.ICRNL | termios.INPCK | termios.ISTRIP | termios.IXON)
        raw[OFLAG] &= ~termios.OPOST
        raw[CFLAG] = raw[CFLAG] & ~(termios.CSIZE | termios.PARENB) | termios.CS8
        raw[LFLAG] &= ~(termios.ECHO | termios.ICANON | termios.IEXTEN | termios.ISIG)
        raw[CC][termios.VMIN], raw[CC][termios.VTIME] = 1, 0
        termios.tcsetattr(self._descriptor, termios.TCSANOW, raw)

    def __exit__(self, *_error: object) -> None:
        if self._before is not None:
            termios.tcsetattr(self._descriptor, termios.TCSADRAIN, self._before)


class Relay:
    """Copies both ways until the container's side is closed, or its process has ended and all was copied."""

    def __init__(self, master: int, pidfd: int) -> None:
        self._master = master
        self._pidfd = pidfd
        self._poll = select.poll()
        for descriptor in (IN, master, pidfd):
            self._poll.register(descriptor, select.POLLIN)

    def run(self) -> None:
        """Signals interrupt poll(2): what is to be done about them is their handlers' business."""
        open_still = True
        while open_still:
            ready = [descriptor for descriptor, _ in self._poll.poll()]
            if IN in ready:
                self._copy_input()
            if self._master in ready:
                open_still = self._copy_output()
            elif self._pidfd in ready:
                open_still = False

    def _copy_input(self) -> None:
        data = os.read(IN, PIECE_BYTES)
        if not data:
            self._poll.unregister(IN)
            with suppress(OSError):
                os.write(self._master, end_of_file(self._master))
        while data:
            data = data[os.write(self._master, data) :]

    def _copy_output(self) -> bool:
        try:
            data = os.read(self._master, PIECE_BYTES)
        except OSError as error:
            if error.errno != errno.EIO:  # how a master tells that nobody holds the other side
                raise
            return False
        while data:
            data = data[os.write(OUT, data) :]
        return True


def resize(master: int) -> None:
    """Give the container's terminal the size of the caller's."""
    with suppress(OSError):  # the caller has none
        fcntl.ioctl(master, termios.TIOCSWINSZ, fcntl.ioctl(IN, termios.TIOCGWINSZ, EMPTY_SIZE))


def end_of_file(master: int) -> bytes:
    """The key that means it, usually Ctrl-D."""
    key = termios.tcgetattr(master)[CC][termios.VEOF]
    return key if isinstance(key, bytes) else b"\x04"


def relay(master: int, pidfd: int, pass_on: Any) -> None:
    """`Relay`, with signals passed on by ``pass_on`` and a change of size taken over."""
    both = Relay(master, pidfd)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, lambda number, _frame: pass_on(number))
    signal.signal(signal.SIGWINCH, lambda _number, _frame: resize(master))
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    try:
        with Raw(IN):
            both.run()
    finally:
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
