"""Where a process's output goes to: a log, whose disk may be full; a reader, which may take its time, go away, or be
given up.
"""

from __future__ import annotations

import logging
import os
import select
import stat
import threading
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from lab.host.closing import Closing

log = logging.getLogger(__name__)


class Writable(Protocol):
    """An open file, or what writes to one: the number of bytes that it took, or None for all of them."""

    def write(self, data: bytes, /) -> int | None: ...

    def close(self) -> None: ...


class Log(Closing):
    """A file that takes what a process writes as far as there is room. What there is none for is lost, which is said
    once: a full disk must not hold up whoever waits for the process. For one thread that writes.
    """

    def __init__(self, path: Path, file: Writable) -> None:
        """``file`` is this object's from now on."""
        self._path = path
        self._file = file
        self._is_told = False

    def write(self, data: bytes) -> None:
        left = data
        try:
            while left:
                written = self._file.write(left)
                left = left[len(left) if written is None else written :]
        except OSError as error:
            if not self._is_told:
                log.warning("output is lost: %s can't be written: %s", self._path, error.strerror)
            self._is_told = True

    def close(self) -> None:
        with suppress(OSError):
            self._file.close()


class Sink(Closing):
    """Thread-safe, for one that writes. The descriptor stays the caller's."""

    def __init__(self, descriptor: int) -> None:
        self._own = _of_a_terminal(descriptor)
        self._descriptor = descriptor if self._own < 0 else self._own
        self._given_up = os.eventfd(0, os.EFD_CLOEXEC)
        self._closing = threading.Lock()
        self._ready = select.poll()
        self._ready.register(self._descriptor, select.POLLOUT)
        self._ready.register(self._given_up, select.POLLIN)

    def write(self, data: bytes) -> None:
        """Pass on all of it, however long the reader takes; nothing once it is gone (EPIPE) or given up."""
        view = memoryview(data)
        while view and self._descriptor >= 0:
            if any(found == self._given_up for found, _ in self._ready.poll()):
                self._descriptor = -1
                return
            try:
                view = view[os.write(self._descriptor, view[: select.PIPE_BUF]) :]  # a pipe has room for so much
            except BlockingIOError:  # whoever shares it may have made it so
                continue
            except OSError:
                self._descriptor = -1

    def give_up(self) -> None:
        """Let nobody wait for the reader any more. Idempotent."""
        with self._closing:
            if self._given_up >= 0:
                os.eventfd_write(self._given_up, 1)

    def close(self) -> None:
        """Nobody writes any more. Idempotent."""
        with self._closing:
            if self._given_up >= 0:
                os.close(self._given_up)
                self._given_up = -1
                if self._own >= 0:
                    os.close(self._own)


def _of_a_terminal(descriptor: int) -> int:
    """A terminal opened once more, so that no write waits in the kernel, as it would for room for all of it; -1 for
    anything else, and where it may not be opened.
    """
    if stat.S_ISCHR(os.fstat(descriptor).st_mode) and os.isatty(descriptor):
        with suppress(OSError):
            return os.open(f"/proc/self/fd/{descriptor}", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    return -1
