"""The one clock: the host's CLOCK_MONOTONIC (measurement rules; clock_gettime(2))."""

from __future__ import annotations

import threading
import time

from lab.model import Phase


def now() -> float:
    """Seconds on the host's CLOCK_MONOTONIC. Comparable between processes of this host boot."""
    return time.clock_gettime(time.CLOCK_MONOTONIC)


class Timeline:
    """When each phase of an instance was seen by the host; the first mark of a phase counts.

    Thread-safe: console readers, the launcher's reader and the caller all mark.
    """

    def __init__(self) -> None:
        self._stamps: dict[Phase, float] = {}
        self._resolutions: dict[Phase, float] = {}
        self._changed = threading.Condition()

    def mark(self, phase: Phase, at: float | None = None, *, resolution_seconds: float = 0.0) -> None:
        """Record ``phase`` at ``at`` (default: now); ``resolution_seconds`` > 0 where it was polled."""
        stamp = now() if at is None else at
        with self._changed:
            if phase not in self._stamps:
                self._stamps[phase] = stamp
                self._resolutions[phase] = resolution_seconds
                self._changed.notify_all()

    def at(self, phase: Phase) -> float | None:
        """Seconds on the one clock, or None while it has not happened."""
        with self._changed:
            return self._stamps.get(phase)

    def wait(self, phase: Phase, timeout_seconds: float) -> bool:
        """Block until ``phase`` is marked; False when the time ran out first."""
        with self._changed:
            return self._changed.wait_for(lambda: phase in self._stamps, timeout_seconds)

    def stamps(self) -> dict[Phase, float]:
        """A copy of every mark."""
        with self._changed:
            return dict(self._stamps)

    def resolution_seconds(self, phase: Phase) -> float:
        """The error bar of a polled phase, 0 for an event-driven one."""
        with self._changed:
            return self._resolutions.get(phase, 0.0)
