"""Copying between descriptors, each direction in a thread of its own: one that is stuck holds up no other.

Descriptors that came from a user are never made non-blocking: others may share them, a shell its terminal.
"""

from __future__ import annotations

import os
import select
import threading
from collections.abc import Sequence
from enum import Enum, auto

CHUNK_BYTES = 1 << 16
STOP_SECONDS = 5.0
ATOMIC_BYTES = select.PIPE_BUF  # once poll(2) calls a pipe writable, so much is written without waiting (pipe(7))


class _Until(Enum):
    THE_END = auto()  # of the source
    EMPTY = auto()  # nothing more is there to be read just now
    NOW = auto()


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
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._ending = threading.Lock()
        self._thread = threading.Thread(target=self._copy, name=name, daemon=True)
        self._thread.start()

    def drain(self, timeout_seconds: float | None = None) -> bool:
        """End as soon as all that is there by now has been passed on; whether that happened in time."""
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
                return os.read(self._source, CHUNK_BYTES)
            except BlockingIOError:
                continue  # the descriptor is shared, and somebody else was quicker
            except OSError:  # EIO is how a terminal's master says that nobody holds the terminal any more (pty(7))
                return b""
        return b""

    def _readable(self) -> bool:
        while self._until is _Until.THE_END:
            if self._wait(self._source, select.POLLIN):
                return True
        return self._until is _Until.EMPTY and self._wait(self._source, select.POLLIN, timeout_seconds=0.0)

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
