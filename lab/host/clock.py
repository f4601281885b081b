"""The one clock: the host's CLOCK_MONOTONIC (measurement rules; clock_gettime(2))."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Protocol

from lab.model import Phase

RUNNING = (Phase.EXECUTED, Phase.RESTORED)


def now() -> float:
    """Seconds on the host's CLOCK_MONOTONIC. Comparable between processes of this host boot."""
    return time.clock_gettime(time.CLOCK_MONOTONIC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One of the things a step consists of: a mount, for instance. Times as in `Taken`."""

    text: str
    began: float
    ended: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """A step of a start that has been taken, by ``side``: a process of the start. Seconds on the one clock."""

    side: str
    step: str
    began: float
    ended: float
    parts: tuple[Part, ...] = ()


@dataclass(frozen=True, slots=True)
class Remark:
    """What one start makes of a step. ``instead``: what is usually done is not, but this, or nothing."""

    text: str
    instead: bool = False
    page: str = ""  # of the manual, for what is done instead


class Listener(Protocol):
    """Who wants to hear of a start while it happens. Called from several threads; must not raise."""

    def remark(self, remarks: Mapping[str, Remark]) -> None:
        """What is particular of this start, by the step it will be true of."""

    def taken(self, taken: Taken) -> None: ...
    def marked(self, phase: Phase, at: float) -> None: ...


class Timeline:
    """When each phase of an instance was seen by the host; the first mark of a phase counts.

    A ``listener`` hears of each phase, and of each step in between. Without one, steps are not even timed.

    Thread-safe: console readers, the launcher's reader and the caller all mark.
    """

    def __init__(self, listener: Listener | None = None) -> None:
        self.listener = listener
        self._stamps: dict[Phase, float] = {}
        self._resolutions: dict[Phase, float] = {}
        self._changed = threading.Condition()

    def mark(self, phase: Phase, at: float | None = None, *, resolution_seconds: float = 0.0) -> None:
        """Record ``phase`` at ``at`` (default: now); ``resolution_seconds`` > 0 where it was polled."""
        stamp = now() if at is None else at
        with self._changed:
            if phase in self._stamps:
                return
            self._stamps[phase] = stamp
            self._resolutions[phase] = resolution_seconds
            self._changed.notify_all()
        if self.listener is not None:
            self.listener.marked(phase, stamp)

    def step(self, side: str, name: str) -> AbstractContextManager[None]:
        """What is done within is that step. Nothing is told of one that fails: the error says so."""
        return nullcontext() if self.listener is None else self._timed(self.listener, side, name)

    @contextmanager
    def _timed(self, listener: Listener, side: str, name: str) -> Iterator[None]:
        began = now()
        yield
        listener.taken(Taken(side=side, step=name, began=began, ended=now()))

    def at(self, phase: Phase) -> float | None:
        """Seconds on the one clock, or None while it has not happened."""
        with self._changed:
            return self._stamps.get(phase)

    def wait(self, phase: Phase, timeout_seconds: float) -> bool:
        """Block until ``phase`` is marked; False when the time ran out first."""
        with self._changed:
            return self._changed.wait_for(lambda: phase in self._stamps, timeout_seconds)

    def running(self) -> float | None:
        """When the application was seen to run here, or None until then: its execve(2), or, of a machine that was
        saved with it, the first sign after it was restored.
        """
        return self.first_of(RUNNING)

    def wait_running(self, timeout_seconds: float) -> bool:
        """Block until `running`; False when the time ran out first."""
        return self.wait_first_of(RUNNING, timeout_seconds)

    def first_of(self, phases: Sequence[Phase]) -> float | None:
        """When the first of ``phases`` that has happened did, or None."""
        with self._changed:
            return next((self._stamps[phase] for phase in phases if phase in self._stamps), None)

    def wait_first_of(self, phases: Sequence[Phase], timeout_seconds: float) -> bool:
        """Block until one of ``phases`` is marked; False when the time ran out first."""
        with self._changed:
            return self._changed.wait_for(lambda: any(phase in self._stamps for phase in phases), timeout_seconds)

    def stamps(self) -> dict[Phase, float]:
        """A copy of every mark."""
        with self._changed:
            return dict(self._stamps)

    def resolution_seconds(self, phase: Phase) -> float:
        """The error bar of a polled phase, 0 for an event-driven one."""
        with self._changed:
            return self._resolutions.get(phase, 0.0)
