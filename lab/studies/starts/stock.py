"""Copies in stock: started before anybody asks, handed out to whoever does, replaced by new ones meanwhile."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from threading import Condition
from typing import Self

from lab.metrics.base import Subject


@dataclass(slots=True)
class Copy:
    """One that is ready, or the ``error`` that there was instead. Leaving its stack stops it."""

    stack: ExitStack = field(default_factory=ExitStack)
    subject: Subject | None = None
    error: BaseException | None = None

    def get(self) -> Subject:
        """It. Raises what there was instead."""
        if self.subject is None:
            raise self.error or LookupError("a copy that was never started")
        return self.subject


class Stock:
    """``size`` copies of one kind, each started by a thread of its own as soon as another was taken. A context
    manager: leaving it stops those that nobody took. Thread-safe.
    """

    def __init__(self, size: int, start: Callable[[], AbstractContextManager[Subject]]) -> None:
        self.size = size
        self._start = start
        self._ready: deque[Copy] = deque()
        self._changed = Condition()
        self._closed = False
        self._threads = ThreadPoolExecutor(size, "lab-stock")
        for _ in range(size):
            self._threads.submit(self._make)

    def wait_full(self) -> None:
        """Until as many as there are to be stand ready, or have failed."""
        with self._changed:
            self._changed.wait_for(lambda: len(self._ready) >= self.size)

    def take(self) -> tuple[Copy, bool]:
        """One that is the caller's from now on, and whether it stood ready; where none does, the next that is, as one
        is being started for each that was taken. Raises CancelledError once it is closed.
        """
        with self._changed:
            stood = bool(self._ready)
            self._changed.wait_for(lambda: bool(self._ready) or self._closed)
            if self._closed:
                raise CancelledError
            copy = self._ready.popleft()
            self._threads.submit(self._make)
        return copy, stood

    def close(self) -> None:
        """Hand no more out: whoever waits is told, and none is started any more. Idempotent."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _make(self) -> None:
        if self._closed:
            return
        copy = Copy()
        try:
            copy.subject = copy.stack.enter_context(self._start())
        except BaseException as error:  # whoever takes it hears of it
            copy.error = error
        with self._changed:
            self._ready.append(copy)
            self._changed.notify_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
        self._threads.shutdown(cancel_futures=True)
        with ExitStack() as each:
            for copy in self._ready:
                each.push(copy.stack)
