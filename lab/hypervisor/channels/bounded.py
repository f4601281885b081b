"""A log that does not grow without an end: its beginning and its last part, and between them how much was left out.

A strange system may write to its serial port for as long as it runs. What is left out is whole lines as far as there
are any, so that no reader takes half of one for a line.
"""

from __future__ import annotations

import os
from pathlib import Path

from lab.host.identity import private

HEAD_BYTES = TAIL_BYTES = 1 << 20
LARGEST_BYTES = HEAD_BYTES + 2 * TAIL_BYTES
"""What the file may hold. When it holds more it is cut back to `HEAD_BYTES`, a note, and `TAIL_BYTES`."""


class BoundedLog:
    """An open log, written by one thread.

    Each cut makes the file shorter. A reader that follows it sees that by its size, and begins anew; it misses
    nothing of the last part as long as it is less than `TAIL_BYTES` behind the writer when it looks again.
    """

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, private.FILE)
        private.tighten(self._descriptor)
        self._size = os.fstat(self._descriptor).st_size
        self._head = 0  # where the note stands, once there is one
        self._note = b""
        self.left_out_bytes = 0

    def write(self, data: bytes) -> None:
        """Append ``data``, and leave out some of what precedes it where it becomes too much. Raises OSError."""
        view = memoryview(data)
        while view:
            written = os.write(self._descriptor, view)
            view = view[written:]
            self._size += written
        if self._size > LARGEST_BYTES:
            self._cut()

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)

    def _cut(self) -> None:
        if not self._note:
            head = os.pread(self._descriptor, HEAD_BYTES, 0)
            self._head = head.rfind(b"\n") + 1 or HEAD_BYTES
        tail = os.pread(self._descriptor, TAIL_BYTES, self._size - TAIL_BYTES)
        tail = tail[tail.find(b"\n") + 1 :]
        self.left_out_bytes += self._size - self._head - len(self._note) - len(tail)
        self._note = f"\n[lab: {self.left_out_bytes:,} bytes were left out here]\n".encode()
        os.ftruncate(self._descriptor, self._head)
        self._size = self._head
        self.write(self._note + tail)
