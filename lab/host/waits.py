"""Long waits, which a signal ends whenever it comes.

Python runs a signal's handler between two instructions of its own, in the main thread (signal, "Execution of Python
signal handlers"). A signal that comes after the last of them and before the thread falls asleep in the kernel does
not wake it: its handler would run when the wait is over, and Ctrl-C would have been pressed in vain.
"""

from __future__ import annotations

import select
import time
from collections.abc import Callable
from typing import TypeVar

AGAIN_SECONDS = 1.0
"""How long a handler may be late."""

T = TypeVar("T")


def waited(ask: Callable[[float], T | None]) -> T:
    """What ``ask`` returns. It is given a number of seconds, and asked again after None."""
    while (found := ask(AGAIN_SECONDS)) is None:
        pass
    return found


def within(seconds: float, ask: Callable[[float], T | None]) -> T | None:
    """As `waited`, for ``seconds`` at most: None then."""
    deadline = time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0:
        if (found := ask(min(left, AGAIN_SECONDS))) is not None:
            return found
    return None


def deadline_of(timeout_seconds: float | None) -> float | None:
    """When that many seconds from now are over, by `time.monotonic`; None is never."""
    return None if timeout_seconds is None else time.monotonic() + timeout_seconds


def left(deadline: float | None) -> float | None:
    """Seconds until then, 0 when it is over; None without one."""
    return None if deadline is None else max(0.0, deadline - time.monotonic())


def readable(descriptor: int) -> None:
    """Until ``descriptor`` can be read, or its other end is closed."""
    poll = select.poll()  # select(2) would stop at descriptor 1023
    poll.register(descriptor, select.POLLIN)
    waited(lambda seconds: poll.poll(seconds * 1000) or None)
