"""Ctrl-C and SIGTERM as one exception, raised once: what cleans up afterwards is not interrupted again."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from lab.results.store import RunFolder

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def what_there_is(folder: RunFolder) -> Iterator[None]:
    """Ctrl-C in here says how to look at what was measured until then."""
    try:
        yield
    except KeyboardInterrupt:
        print(f"\nlab: interrupted; what there is of it: lab report {folder.path}", file=sys.stderr)
        raise


class Interrupted(KeyboardInterrupt):
    """A signal asked lab to end. ``number`` is the signal's; a shell reports such an end as 128 + n."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number

    @property
    def exit_code(self) -> int:
        return 128 + self.number


class Interruptible:
    """While it is entered, the first of SIGINT, SIGTERM and SIGHUP raises Interrupted in the main thread.

    Later ones only call ``when_impatient``, if it is set: cleaning up goes on. After `disarm` the first does
    too, so that the orderly end of a command can't be torn apart.
    """

    def __init__(self) -> None:
        self.when_impatient: Callable[[], None] | None = None
        self.interrupted_by: int | None = None
        self._armed = True
        self._holding = False
        self._held: int | None = None
        self._previous: dict[int, Any] = {}

    def hold(self) -> None:
        """From now on the first signal waits for `release`, since half a launch can't be stopped gracefully; a
        second one does not.
        """
        self._holding = True

    def release(self) -> None:
        """Raise Interrupted for the signal that came meanwhile, if one did."""
        self._holding = False
        if self._held is not None:
            self._interrupt(self._held)

    def disarm(self) -> None:
        """From now on nothing is raised."""
        self._armed = False

    def arm(self) -> None:
        """Take the signals over, as entering does, with no end. What nohup(1) had ignored stays ignored."""
        for number in SIGNALS:
            if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
                self._previous[number] = signal.signal(number, self._handle)

    def __enter__(self) -> Self:
        self.arm()
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._armed and self._holding and self._held is None:
            self._held = number
        elif self._armed:
            self._interrupt(number)
        elif self.when_impatient is not None:
            self.when_impatient()

    def _interrupt(self, number: int) -> None:
        self._armed = False
        self.interrupted_by = number
        if command := sys.modules.get("lab.host.command"):  # else no command runs
            command.pass_on(number)
        raise Interrupted(number)
