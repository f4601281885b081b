"""Who listens, and how they hear that something has changed: server-sent events (HTML, section 9.2)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Any

HEARTBEAT_SECONDS = 15.0
"""A connection that broke without a word is noticed when something is sent."""
PAUSE_SECONDS = 0.2
"""Between two of one listener's events: a class that guesses at once is drawn five times a second."""
AGAIN_MILLISECONDS = 1000
"""How long a page waits before it connects again."""


class Hub:
    """The open streams of a server. Used in one thread."""

    def __init__(self) -> None:
        self._wakes: dict[asyncio.Event, int] = {}
        self.closed = False

    def changed(self) -> None:
        """Let everybody look again."""
        for wake in self._wakes:
            wake.set()

    def close(self) -> None:
        """End all streams."""
        self.closed = True
        self.changed()

    def present(self) -> set[int]:
        """The students whose phones listen."""
        return {student for student in self._wakes.values() if student}

    async def stream(self, view: Callable[[], dict[str, Any] | None], student: int = 0) -> AsyncIterator[str]:
        """An event with what ``view`` says, now and whenever that has changed; the end where it says None."""
        wake = asyncio.Event()
        self._wakes[wake] = student
        if student:
            self.changed()
        last = ""
        try:
            yield f"retry: {AGAIN_MILLISECONDS}\n\n"
            while not self.closed:
                wake.clear()
                told = view()
                if told is None:
                    yield "event: gone\ndata: {}\n\n"
                    return
                text = json.dumps(told, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
                if text != last:
                    yield f"data: {text}\n\n"
                    last = text
                    await asyncio.sleep(PAUSE_SECONDS)
                with suppress(TimeoutError):
                    await asyncio.wait_for(wake.wait(), HEARTBEAT_SECONDS)
                    continue
                yield ": still here\n\n"
        finally:
            del self._wakes[wake]
            if student:
                self.changed()
