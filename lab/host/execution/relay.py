"""Copying between descriptors, each direction in a thread of its own: one that is stuck holds up no other.

Descriptors that came from a user are never made non-blocking: others may share them, a shell its terminal.
"""

from __future__ import annotations

import fcntl
import os
import select
import threading
from collections.abc import Sequence
from contextlib import suppress
from enum import Enum, auto

from lab.host.closing import Closing

CHUNK_BYTES = 1 << 16
MOST_BYTES = 1 << 18  # of a terminal, whose buffers hold 64 KiB and a line discipline's 4; of a socket
STOP_SECONDS = 5.0
ATOMIC_BYTES = select.PIPE_BUF  # once poll(2) calls a pipe writable, so much is written without waiting (pipe(7))


class _Until(Enum):
    THE_END = auto()  # of the source
    EMPTY = auto()  # what is there to be read just now
    NOW = auto()


def capacity(descriptor: int) -> int:
    """How much may be in it that was written and not read, in bytes: of a pipe, else of a terminal or a socket. What
    is closed holds nothing.
    """
    if descriptor < 0:
        return 0
    with suppress(OSError):
        return fcntl.fcntl(descriptor, fcntl.F_GETPIPE_SZ)
    return MOST_BYTES


class Lane:
    """Copies ``source`` to ``sink`` until the source ends or the sink's reader has gone. Starts at once.

    Both stay the caller's, except those in ``owned``, which are closed when the copying ends. ``discard`` goes on
    reading when nobody reads the sink any more, so that the writer does not get stuck.
    """

    def __init__(
        self, source: int, sink: int, *, name: str, owned: Sequence[int] = (), discard: bool = False
    ) -> None:
        self._source = source
        self._sink = sink
        self._owned = owned
        self._discard = discard
        self._until = _Until.THE_END
        self._there = CHUNK_BYTES + capacity(source)  # what may be in hand, and what may be in it
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._ending = threading.Lock()
        self._thread = threading.Thread(target=self._copy, name=name, daemon=True)
        self._thread.start()

    def drain(self, timeout_seconds: float | None = None) -> bool:
        """End as soon as all that is there by now has been passed on; whether that happened in time. What others go
        on writing is not waited for.
        """
        return self._end(_Until.EMPTY, timeout_seconds)

    def stop(self) -> None:
        """End now. Idempotent."""
        if self._end(_Until.NOW, STOP_SECONDS):
            with self._ending:
                if self._wake >= 0:
                    os.close(self._wake)
                self._wake = -1

    def _end(self, until: _Until, timeout_seconds: float | None) -> bool:
        with self._ending:
            if self._until is not _Until.NOW:
                self._until = until
            if self._wake >= 0:
                os.eventfd_write(self._wake, 1)
        self._thread.join(timeout_seconds)
        return not self._thread.is_alive()

    # The thread

    def _copy(self) -> None:
        try:
            while chunk := self._read():
                if not self._write(chunk) and not self._discard:
                    break
        finally:
            for descriptor in self._owned:
                os.close(descriptor)

    def _read(self) -> bytes:
        """What is there, or nothing at the end, whichever end it is."""
        while self._readable():
            try:
                chunk = os.read(self._source, CHUNK_BYTES)
                if self._until is _Until.EMPTY:
                    self._there -= len(chunk)
                return chunk
            except BlockingIOError:
                continue  # the descriptor is shared, and somebody else was quicker
            except OSError:  # EIO is how a terminal's master says that nobody holds the terminal any more (pty(7))
                return b""
        return b""

    def _readable(self) -> bool:
        while self._until is _Until.THE_END:
            if self._wait(self._source, select.POLLIN):
                return True
        is_left = self._until is _Until.EMPTY and self._there > 0
        return is_left and self._wait(self._source, select.POLLIN, timeout_seconds=0.0)

    def _write(self, chunk: bytes) -> bool:
        """Whether it could be written."""
        view = memoryview(chunk)
        try:
            most = CHUNK_BYTES if not os.get_blocking(self._sink) else ATOMIC_BYTES
            while view and self._until is not _Until.NOW:
                if self._wait(self._sink, select.POLLOUT):
                    try:
                        view = view[os.write(self._sink, view[:most]) :]
                    except BlockingIOError:
                        continue
        except OSError:  # its reader has gone (EPIPE), its terminal has (EIO), its disk is full
            return False
        return not view

    def _wait(self, descriptor: int, event: int, timeout_seconds: float | None = None) -> bool:
        """Until something may be done with ``descriptor``, or somebody wants this to end."""
        poll = select.poll()
        poll.register(descriptor, event)
        poll.register(self._wake, select.POLLIN)
        ready = dict(poll.poll(None if timeout_seconds is None else timeout_seconds * 1000))
        if self._wake in ready:
            os.eventfd_read(self._wake)
        return descriptor in ready


class Beginning(Closing):
    """The first bytes of what is written to ``descriptor``, a pipe; the rest is read and thrown away, so that neither
    the writer gets stuck nor this process's memory fills. ``text`` is whole once this is closed.
    """

    def __init__(self, most_bytes: int) -> None:
        self.text = b""
        self._most = most_bytes
        self._source, self.descriptor = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(self._source, False)
        self._wake = os.eventfd(0, os.EFD_CLOEXEC)
        self._thread = threading.Thread(target=self._keep, name="lab-beginning", daemon=True)
        self._thread.start()

    def _keep(self) -> None:
        poll = select.poll()
        poll.register(self._source, select.POLLIN)
        poll.register(self._wake, select.POLLIN)
        there = capacity(self._source)
        while there > 0:
            is_closing = any(found == self._wake for found, _ in poll.poll())
            try:
                chunk = os.read(self._source, CHUNK_BYTES)
            except BlockingIOError:
                if is_closing:
                    return
                continue
            if not chunk:
                return
            self.text += chunk[: self._most - len(self.text)]
            there -= len(chunk) * is_closing  # who holds the pipe still may go on for ever

    def close(self) -> None:
        """Idempotent."""
        if self.descriptor >= 0:
            os.eventfd_write(self._wake, 1)
            self._thread.join()
            for descriptor in (self.descriptor, self._source, self._wake):
                os.close(descriptor)
            self.descriptor = -1
