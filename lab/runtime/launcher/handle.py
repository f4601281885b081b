"""One process of the spawner's, as its client sees it: events in, waiting and signals out."""

from __future__ import annotations

import fcntl
import os
import select
import selectors
import signal
import sys
import termios
import threading
import time

from lab.errors import ExitUnknown, LabError, LaunchError
from lab.host.clock import Part, Taken, Timeline
from lab.model import Phase
from lab.runtime.channel import Message
from lab.runtime.init import RUNTIME_FAILED

START_TIMEOUT_SECONDS = 30.0
MOST_BYTES = 64 << 20  # of one stream of a command that is read to its end
CHUNK_BYTES = 1 << 16
STARTED = (Phase.ISOLATED, Phase.INIT, Phase.EXECUTED, Phase.RESTORED)


class Handle:
    """What the client knows of one process of the spawner's; filled in by the reader thread."""

    def __init__(self, identity: str, timeline: Timeline, *, survives: bool = False) -> None:
        self.identity = identity
        self.survives = survives  # the spawner's death
        self.timeline = timeline
        self.pid = 0
        self.pidfd = -1
        self.isolated = False
        self.executed = False
        self.exit_code: int | None = None
        self.failure: LaunchError | None = None
        self.unknown: ExitUnknown | None = None
        self._changed = threading.Condition()

    def hear(self, message: Message, descriptors: list[int]) -> None:
        """One event from the spawner."""
        if message["message"] == "STEP":
            self._hear_step(message["taken"])
            return
        with self._changed:
            if descriptors and self.pidfd < 0:
                self.pidfd = descriptors.pop()
                self.pid = int(str(message["pid"]))
            stamps = message.get("stamps")
            for phase in STARTED:
                if isinstance(stamps, dict) and phase in stamps:
                    self.timeline.mark(phase, stamps[phase])
            name = message["message"]
            if name == "FAILED":
                code = int(str(message["code"]))
                self.failure = LaunchError(
                    f"container {self.identity}: {message['step']}: {message['text']}",
                    exit_code=code,
                    hint="" if code == RUNTIME_FAILED else "does the image hold that program?",
                )
                self.exit_code = code
            elif name == "EXITED":
                self.exit_code = int(str(message["code"]))
            self.executed = self.executed or name in ("EXECUTED", "RESTORED")
            self.isolated = self.isolated or self.executed or name == "ISOLATED"
            self._changed.notify_all()
        for descriptor in descriptors:
            os.close(descriptor)

    def _hear_step(self, taken: object) -> None:
        assert isinstance(taken, dict)
        parts = tuple(Part(text=text, began=began, ended=ended) for text, began, ended in taken["parts"])
        if self.timeline.listener is not None:
            self.timeline.listener.taken(Taken(**taken | {"parts": parts}))

    def lose(self, error: LaunchError) -> None:
        """The spawner is gone, and with it every process it started that was not meant to survive it."""
        with self._changed:
            if self.survives and self.executed:
                return
            if self.exit_code is None:
                self.failure = None if self.executed else error
                self.exit_code = 128 + signal.SIGKILL
            self._changed.notify_all()

    def wait_started(self, *, isolated_is_enough: bool) -> None:
        """Until the application is executed. Raises LaunchError when it could not be."""
        with self._changed:
            started = self._changed.wait_for(
                lambda: self.executed or self.failure or (self.isolated and isolated_is_enough), START_TIMEOUT_SECONDS
            )
            if self.failure is not None:
                raise self.failure
        if not started:
            raise LaunchError(f"container {self.identity} did not start within {START_TIMEOUT_SECONDS:g} s")

    def wait_claimed(self) -> None:
        """Until a spawner that was there before has told what it knows of it. Raises LaunchError if it is nothing."""
        with self._changed:
            self._changed.wait_for(lambda: self.executed or self.exit_code is not None, START_TIMEOUT_SECONDS)
            if self.failure is not None:
                raise self.failure

    def wait(self, timeout_seconds: float | None) -> int | None:
        """The exit code, or None when the time ran out first. Raises ExitUnknown: see `found`."""
        with self._changed:
            self._changed.wait_for(lambda: self.exit_code is not None or self.unknown, timeout_seconds)
            if self.unknown is not None:
                raise self.unknown
            return self.exit_code

    def found(self, pid: int, pidfd: int) -> None:
        """It runs already, as the child of a process that has died: its end can be seen, not its exit code."""
        with self._changed:
            self.pid, self.pidfd, self.executed = pid, pidfd, True
        threading.Thread(target=self._watch, args=(os.dup(pidfd),), name="lab-watch", daemon=True).start()

    def _watch(self, pidfd: int) -> None:
        select.select([pidfd], [], [])
        os.close(pidfd)
        with self._changed:
            self.unknown = ExitUnknown(f"the exit code of {self.identity} is not known: its parent died before it")
            self._changed.notify_all()

    def send_signal(self, number: int) -> None:
        """To this very process: a pidfd never names a later one with the same number."""
        with self._changed:
            if self.pidfd >= 0 and self.exit_code is None:
                try:
                    signal.pidfd_send_signal(self.pidfd, number)
                except ProcessLookupError:
                    pass

    def close(self) -> None:
        with self._changed:
            if self.pidfd >= 0:
                os.close(self.pidfd)
                self.pidfd = -1


def collect(
    pipes: list[int], pidfd: int, timeout_seconds: float, *, what: str = "the command", most_bytes: int = MOST_BYTES
) -> list[bytes] | None:
    """What comes out of ``pipes`` until the process ``pidfd`` has ended, or None when the time runs out first.

    The end of the process counts, not of the pipes: a daemon it left behind may hold them for ever, and may write for
    ever. Of what comes after it, no more is read than is in the pipes then. Raises LabError once ``what`` has written
    more than ``most_bytes`` to one of them. The pipes are made non-blocking: whoever is inside may open an end of its
    own and read from it.
    """
    deadline = time.monotonic() + timeout_seconds
    output = {pipe: bytearray() for pipe in pipes}
    with selectors.DefaultSelector() as selector:
        for pipe in pipes:
            os.set_blocking(pipe, False)
            selector.register(pipe, selectors.EVENT_READ)
        selector.register(pidfd, selectors.EVENT_READ)
        ended = False
        while not ended:
            remaining = deadline - time.monotonic()
            if remaining < 0:
                return None
            for descriptor in [key.fd for key, _ in selector.select(remaining)]:
                if descriptor == pidfd:
                    ended = True
                elif _take(descriptor, output[descriptor], CHUNK_BYTES, what, most_bytes) == 0:
                    selector.unregister(descriptor)
    for pipe in pipes:
        left = _held_bytes(pipe)
        while left > 0 and (taken := _take(pipe, output[pipe], min(left, CHUNK_BYTES), what, most_bytes)):
            left -= taken
    return [bytes(output[pipe]) for pipe in pipes]


def _take(pipe: int, output: bytearray, size: int, what: str, most_bytes: int) -> int | None:
    """How much was read and added, 0 at the pipe's end; None when somebody else has emptied it."""
    try:
        data = os.read(pipe, size)
    except BlockingIOError:
        return None
    if len(output) + len(data) > most_bytes:
        raise LabError(f"{what} wrote more than {most_bytes >> 20} MiB")
    output += data
    return len(data)


def _held_bytes(pipe: int) -> int:
    """How much is in a pipe (pipe(7), FIONREAD): never more than its capacity."""
    return int.from_bytes(fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)), sys.byteorder)
