"""An application's output on its way to a log file and, where asked for, to a second place besides."""

from __future__ import annotations

import os
import threading
from pathlib import Path

from lab.host.closing import Closing
from lab.host.identity import private

CHUNK_BYTES = 65536
DRAIN_SECONDS = 5.0


class Output(Closing):
    """One stream. ``descriptor`` is what the application writes to.

    Without a second place it is the log file itself: nothing of lab's runs while the application writes.
    """

    def __init__(self, log: Path, besides: int | None = None) -> None:
        self._log = private.append_to(log)
        self._thread: threading.Thread | None = None
        self._besides = besides
        self.descriptor = self._log
        if besides is not None:
            self._source, self.descriptor = os.pipe2(os.O_CLOEXEC)
            self._thread = threading.Thread(target=self._copy, name=f"lab-{log.name}", daemon=True)
            self._thread.start()

    def handed_over(self) -> None:
        """The application has its own copy of ``descriptor`` now: the end of its output can be seen. Idempotent."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1

    def close(self) -> None:
        """Wait until what was written has arrived. Idempotent.

        The end comes with the last process that holds the stream, so everything in the instance's cgroup should
        be dead by now; one that escaped can't hold lab up for more than five seconds.
        """
        self.handed_over()
        if self._thread is not None:
            self._thread.join(DRAIN_SECONDS)
            self._thread = None

    def _copy(self) -> None:
        with os.fdopen(self._source, "rb", 0) as source, os.fdopen(self._log, "wb", 0) as log:
            while chunk := source.read(CHUNK_BYTES):
                log.write(chunk)
                self._pass_on(chunk)

    def _pass_on(self, chunk: bytes) -> None:
        """A reader that went away (EPIPE) ends the passing on, not the application."""
        try:
            while chunk and self._besides is not None:
                chunk = chunk[os.write(self._besides, chunk) :]
        except OSError:
            self._besides = None
