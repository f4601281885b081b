"""Somebody's descriptors on one side, a stream of the Engine's on the other.

Without a terminal, what comes out is in frames: a byte that says which stream, three that are zero, the length in
four, then the bytes (Docker Engine API, "Stream format"). With one, it is the terminal's output as it is.
"""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

from lab.host.execution.relay import Lane

if TYPE_CHECKING:
    from lab.backends.engine.client import Stream

CHUNK_BYTES = 65536
HEAD_BYTES = 8
STDOUT, STDERR = 1, 2
STOP_SECONDS = 5.0


class Attachment:
    """Copies both ways as soon as it is made. The descriptors stay the caller's.

    ``written`` says how many bytes of stdout and stderr are to be passed over: they are there already.
    """

    def __init__(
        self,
        stream: Stream,
        stdout: int,
        stderr: int,
        *,
        stdin: int | None = None,
        terminal: bool = False,
        written: tuple[int, int] = (0, 0),
    ) -> None:
        self._stream = stream
        self._sinks = {STDOUT: stdout, STDERR: stderr}
        self._over = {STDOUT: written[0], STDERR: written[1]}
        self._lane: Lane | None = None
        copy = self._copy if terminal else self._copy_frames
        self._reader = threading.Thread(target=copy, name="lab-docker-output", daemon=True)
        self._reader.start()
        if stdin is not None:
            read, write = os.pipe2(os.O_CLOEXEC)
            os.set_blocking(write, False)
            threading.Thread(target=self._feed, args=(read,), name="lab-docker-input", daemon=True).start()
            self._lane = Lane(stdin, write, name="lab-stdin", owned=[write])

    def drain(self, timeout_seconds: float | None = None) -> bool:
        """Whether all that was written has been passed on in time: the stream ends when Docker sees its end."""
        self._reader.join(timeout_seconds)
        return not self._reader.is_alive()

    def close(self) -> None:
        """Stop copying. Idempotent."""
        if self._lane is not None:
            self._lane.stop()
            self._lane = None
        self._stream.close()
        self._reader.join(STOP_SECONDS)

    def _copy(self) -> None:
        while chunk := self._stream.read(CHUNK_BYTES):
            self._pass_on(STDOUT, chunk)

    def _copy_frames(self) -> None:
        while len(head := self._stream.read_exactly(HEAD_BYTES)) == HEAD_BYTES:
            left = int.from_bytes(head[4:], "big")
            while left and (chunk := self._stream.read(min(left, CHUNK_BYTES))):
                left -= len(chunk)
                self._pass_on(head[0], chunk)

    def _pass_on(self, which: int, chunk: bytes) -> None:
        """A reader that has gone ends the passing on, not the application."""
        over = min(self._over.get(which, 0), len(chunk))
        if over:
            self._over[which] -= over
            chunk = chunk[over:]
        sink = self._sinks.get(which, -1)
        try:
            while chunk and sink >= 0:
                chunk = chunk[os.write(sink, chunk) :]
        except OSError:
            self._sinks[which] = -1

    def _feed(self, source: int) -> None:
        """From the pipe into the stream: a pipe's end can be closed under its reader, a user's descriptor not."""
        with suppress(OSError), os.fdopen(source, "rb", 0) as reader:
            while (chunk := reader.read(CHUNK_BYTES)) and self._stream.write(chunk):
                pass
            self._stream.end_input()
