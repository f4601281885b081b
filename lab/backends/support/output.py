"""An application's output on its way to a log file and, where asked for, to a second place besides."""

from __future__ import annotations

import os
import select
import threading
import time
from contextlib import ExitStack
from pathlib import Path

from lab.host import waits
from lab.host.closing import Closing
from lab.host.execution.relay import capacity
from lab.host.execution.sink import Log, Sink
from lab.host.identity import private

CHUNK_BYTES = 65536
DRAIN_SECONDS = 5.0
LOOK_SECONDS = 0.01


class Output(Closing):
    """One stream. ``descriptor`` is what the application writes to.

    Without a second place it is the log file itself: nothing of lab's runs while the application writes. What the
    application did to that file besides is undone in the end; until then its folder keeps others out.
    """

    def __init__(self, log: Path, besides: int | None = None) -> None:
        self._log = private.append_to(log)
        self._path = log
        self._thread: threading.Thread | None = None
        self._besides: Sink | None = None
        self.descriptor = self._log
        if besides is not None:
            self._besides = Sink(besides)
            self._source, self.descriptor = os.pipe2(os.O_CLOEXEC)
            self._passing = threading.Lock()  # held while there is something that has not arrived
            self._arrived = 0
            self._thread = threading.Thread(
                target=self._copy, args=(self._besides,), name=f"lab-{log.name}", daemon=True
            )
            self._thread.start()

    def handed_over(self) -> None:
        """The application has its own copy of ``descriptor`` now: the end of its output can be seen. Idempotent."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1

    @property
    def is_busy(self) -> bool:
        """Whether something that was written has not arrived."""
        if self._thread is None:
            return False
        if not self._passing.acquire(blocking=False):
            return True
        try:
            return self._source >= 0 and bool(_readable(self._source).poll(0))
        finally:
            self._passing.release()

    def drain(self, timeout_seconds: float | None = None) -> bool:
        """Wait until all that is there by now has arrived, however long its reader takes; whether it has in time.

        What others go on writing is not waited for: more than the pipe holds, and what was in hand, is new.
        """
        deadline = waits.deadline_of(timeout_seconds)
        there = 0 if self._thread is None else self._arrived + CHUNK_BYTES + capacity(self._source)
        while self.is_busy and self._arrived < there:
            if waits.left(deadline) == 0:
                return False
            time.sleep(LOOK_SECONDS)
        return True

    def close(self) -> None:
        """Wait until what was written has arrived. Idempotent.

        The end comes with the last process that holds the stream, so everything in the instance's cgroup should
        be dead by now; one that escaped can't hold lab up for more than five seconds, and neither can a reader that
        takes nothing: then only the log gets the rest.
        """
        self.handed_over()
        if self._thread is not None:
            self._thread.join(DRAIN_SECONDS)
            self.give_up()
            self._thread = None
        elif self._besides is None:
            private.take_back(self._path)

    def give_up(self) -> None:
        """Pass nothing more on to a reader that does not take it; the log gets it all the same."""
        if self._besides is not None:
            self._besides.give_up()

    def _copy(self, besides: Sink) -> None:
        readable = _readable(self._source)
        with (
            besides,
            os.fdopen(self._source, "rb", 0) as source,
            Log(self._path, os.fdopen(self._log, "wb", 0)) as log,
        ):
            while self._source >= 0:
                readable.poll()
                with self._passing:
                    chunk = source.read(CHUNK_BYTES)
                    if chunk:
                        log.write(chunk)
                        besides.write(chunk)
                        self._arrived += len(chunk)
                    else:
                        self._source = -1
                        source.close()


class Outputs(ExitStack):
    """The streams of one instance."""

    def __init__(self) -> None:
        super().__init__()
        self._all: list[Output] = []

    def open(self, log: Path, besides: int | None = None) -> Output:
        """One more, which closes with this."""
        self._all.append(self.enter_context(Output(log, besides)))
        return self._all[-1]

    @property
    def is_busy(self) -> bool:
        """Whether something that was written to any has not arrived."""
        return any(each.is_busy for each in self._all)

    def give_up(self) -> None:
        """As `Output.give_up`, of all of them."""
        for each in self._all:
            each.give_up()

    def drain(self, timeout_seconds: float | None = None) -> bool:
        """As `Output.drain`, of all of them."""
        deadline = waits.deadline_of(timeout_seconds)
        return all(each.drain(waits.left(deadline)) for each in self._all)


def _readable(descriptor: int) -> select.poll:
    poll = select.poll()  # select(2) would stop at descriptor 1023
    poll.register(descriptor, select.POLLIN)
    return poll
