"""What somebody types to a guest's application: copied to the port that inside/interact.c reads.

Where a port loses what is not taken at once, that is told how much may be on its way, and answers what it has taken.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable
from contextlib import suppress

from lab.host.execution.relay import STOP_SECONDS, Lane
from lab.hypervisor.channels.frames import CHUNK_BYTES, NUMBER, SIZE, FrameKind, frame
from lab.model import TerminalSize


class Keyboard:
    """The port itself stops who types faster than the application reads."""

    def __init__(
        self,
        source: int | None,
        connect: Callable[[], socket.socket | None],
        *,
        most_untaken_bytes: int | None = None,
    ) -> None:
        """``source`` stays the caller's. ``connect`` waits for the port, and gives None if it never comes. At most
        ``most_untaken_bytes`` of frames are on their way, where that is given; their last one may be a resizing.
        """
        self._most_untaken = most_untaken_bytes
        self._untaken = 0
        self._connect = connect
        self._sending = threading.Lock()
        self._connection: socket.socket | None = None
        self._size: TerminalSize | None = None
        self._read, write = os.pipe2(os.O_CLOEXEC)
        if source is None:
            self._lane = None
            self._write = write
        else:
            os.set_blocking(write, False)
            self._lane = Lane(source, write, name="lab-keyboard", owned=[write])
        self._thread = threading.Thread(target=self._send_all, name="lab-typed", daemon=True)
        self._thread.start()

    def resize(self, size: TerminalSize) -> None:
        """Give the application's terminal another size."""
        with self._sending:
            self._size = size
            if self._connection is not None:
                self._send_size()

    def close(self) -> None:
        """Send no more. Idempotent. The connection has to be at its end by now if anybody still waits for it."""
        if self._lane is not None:
            self._lane.stop()
        elif self._write >= 0:
            os.close(self._write)
            self._write = -1
        self._thread.join(STOP_SECONDS)

    def _send_size(self) -> None:
        if self._connection is not None and self._size is not None:
            self._put(frame(0, FrameKind.RESIZE, SIZE.pack(self._size.rows, self._size.columns)))

    def _send_all(self) -> None:
        connection = self._connect()
        with self._sending:
            self._connection = connection
            self._send_size()
        chunk = CHUNK_BYTES if self._most_untaken is None else self._most_untaken // 2
        with os.fdopen(self._read, "rb", 0) as source:
            while data := source.read(chunk):
                self._send(frame(0, FrameKind.DATA, data))
        self._send(frame(0, FrameKind.END))

    def _send(self, data: bytes) -> None:
        if self._connection is not None and not self._until_taken(self._connection, len(data)):
            return
        with self._sending:
            self._put(data)

    def _put(self, data: bytes) -> None:
        if self._connection is not None:
            with suppress(OSError):  # the machine has ended
                self._connection.sendall(data)
                self._untaken += len(data)

    def _until_taken(self, connection: socket.socket, size: int) -> bool:
        """Wait until ``size`` bytes more may be on their way; False when the machine has ended."""
        while self._most_untaken is not None and self._untaken + size > self._most_untaken:
            try:
                answer = connection.recv(NUMBER.size, socket.MSG_WAITALL)
            except OSError:
                return False
            if len(answer) < NUMBER.size:
                return False
            with self._sending:
                self._untaken = max(0, self._untaken - NUMBER.unpack(answer)[0])
        return True
