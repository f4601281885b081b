"""HTTP for a room of strangers: a connection that asks for nothing does not stay.

A server has so many descriptors, and a stranger that opens connections and is silent would keep all phones out.
uvicorn itself closes those that were answered once and send nothing more.
"""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

REQUEST_SECONDS = 30.0
"""For a whole request, its body too, from when the connection is there or the last answer has ended."""


class Patient(H11Protocol):
    """A connection that is closed where a request does not come within `REQUEST_SECONDS`."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._expect(None)

    def on_response_complete(self) -> None:
        answered = self.cycle
        super().on_response_complete()
        self._expect(answered)

    def _expect(self, before: RequestResponseCycle | None) -> None:
        """Look later whether another request than ``before`` has come."""
        self.loop.call_later(REQUEST_SECONDS, self._look, before)

    def _look(self, before: RequestResponseCycle | None) -> None:
        now: RequestResponseCycle | None = self.cycle
        answered = now is not None and now.response_started
        if now is before and (now is None or now.response_complete or not answered):
            self.transport.close()
        elif not answered:
            self._expect(now)
