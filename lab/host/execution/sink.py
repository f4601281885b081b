"""Where a process's output is passed on to: a reader that may take its time, go away, or be given up."""

from __future__ import annotations

import os
import select
import threading

from lab.host.closing import Closing


class Sink(Closing):
    """Thread-safe, for one that writes. The descriptor stays the caller's."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._given_up = os.eventfd(0, os.EFD_CLOEXEC)
        self._closing = threading.Lock()
        self._ready = select.poll()
        self._ready.register(descriptor, select.POLLOUT)
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
