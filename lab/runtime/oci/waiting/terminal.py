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
MOST_HELD_BYTES = 1 << 20  # drivers/tty/tty_buffer.c, TTYB_DEFAULT_MEM_LIMIT: 640 KiB
EMPTY_SIZE = bytes(8)  # struct winsize
IN, OUT = 0, 1
IFLAG, OFLAG, CFLAG, LFLAG, CC = 0, 1, 2, 3, 6  # of termios.tcgetattr


class HungUp(Exception):
    """One side of the terminal has gone."""


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
            with suppress(termios.error):  # it has gone
                termios.tcsetattr(self._descriptor, termios.TCSADRAIN, self._before)


class Relay:
    """Copies both ways until the process has ended, or nobody holds the container's side of the terminal.

    Whatever doesn't read what it is sent holds up that direction alone, and no end. Where nobody can see the output
    any more, the container's terminal hangs up, as any terminal does whose user has gone.
    """

    def __init__(self, master: int, pidfd: int) -> None:
        self._master = master
        self._pidfd = pidfd
        self._poll = select.poll()
        self._watched: set[int] = set()
        self._to_master, self._to_out = b"", b""
        self._typing = True  # more may come in
        os.set_blocking(master, False)

    def run(self) -> None:
        """Signals interrupt poll(2): what is to be done about them is their handlers' business."""
        with suppress(HungUp):
            self._watch(self._pidfd, select.POLLIN)
            while True:
                self._watch(IN, select.POLLIN if self._typing and not self._to_master else 0)
                self._watch(OUT, select.POLLOUT if self._to_out else 0)
                reading, writing = not self._to_out, bool(self._to_master)
                self._watch(self._master, reading * select.POLLIN | writing * select.POLLOUT)
                ready = dict(self._poll.poll())
                if self._pidfd in ready:
                    break
                if OUT in ready:
                    self._show()
                if IN in ready:
                    self._type()
                if writing and self._master in ready:
                    self._pass_in(closed=bool(ready[self._master] & select.POLLHUP))
                if reading and self._master in ready:
                    self._to_out = self._said()
            self._copy_the_rest()

    def _watch(self, descriptor: int, events: int) -> None:
        if events:
            self._poll.register(descriptor, events)
            self._watched.add(descriptor)
        elif descriptor in self._watched:  # or a pipe that has broken would be told again and again
            self._poll.unregister(descriptor)
            self._watched.remove(descriptor)

    def _type(self) -> None:
        try:
            self._to_master = os.read(IN, PIECE_BYTES)
        except BlockingIOError:
            return
        except OSError:
            pass
        if not self._to_master:
            self._typing = False
            with suppress(termios.error):
                self._to_master = end_of_file(self._master)

    def _pass_in(self, *, closed: bool) -> None:
        try:
            self._to_master = self._to_master[os.write(self._master, self._to_master) :]
        except BlockingIOError:
            pass
        except OSError:  # EIO: nobody reads there
            closed = True
        if closed:
            self._typing, self._to_master = False, b""

    def _said(self) -> bytes:
        """What the container has said, b"" for nothing now. Raises HungUp when nobody there can say any more."""
        try:
            data = os.read(self._master, PIECE_BYTES)
        except BlockingIOError:
            return b""
        except OSError as error:
            if error.errno != errno.EIO:  # how a master tells that nobody holds the other side
                raise
            raise HungUp from None
        return data

    def _show(self) -> None:
        """As much as a pipe that is ready takes without waiting. Raises HungUp when nobody will see it."""
        try:
            self._to_out = self._to_out[os.write(OUT, self._to_out[: select.PIPE_BUF]) :]
        except BlockingIOError:
            pass
        except OSError:
            os.close(self._master)
            raise HungUp from None

    def _copy_the_rest(self) -> None:
        """The process has ended. What it has said is shown, and no more than a terminal holds of what others say."""
        left = MOST_HELD_BYTES
        while True:
            while self._to_out:
                select.select([], [OUT], [])
                self._show()
            self._to_out = self._said() if left > 0 else b""
            left -= len(self._to_out)
            if not self._to_out:
                return


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
