"""What stands before every request: host and origin, size, tries, and the headers of every answer."""

from __future__ import annotations

import time
from collections import OrderedDict, deque
from collections.abc import Callable, Collection
from http import HTTPStatus

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MOST_BYTES = 4096
"""Of what a page sends."""
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
POLICY_OF_SCREEN = f"{POLICY}; frame-src 'self'"
"""The projector's page has the race in a frame."""
SANDBOX = "sandbox allow-scripts"
"""Of a report: its script may not act as the teacher, whoever wrote the run's folder (CSP level 3, section 6.3.2)."""
FRAMED = f"{SANDBOX}; frame-ancestors 'self'"
"""Of a page that the projector's has in a frame; its own policy stands in it."""
WRONG_TRIES, WINDOW_SECONDS, MOST_ADDRESSES = 20, 60.0, 4096


class Guard:
    """An ASGI application around another: refuses what no page of this server asks."""

    def __init__(self, app: ASGIApp, hosts: Collection[str]) -> None:
        """``hosts`` are the values of Host by which the server goes: another one is a name of somebody else's that
        leads here (DNS rebinding).
        """
        self.app = app
        self.hosts = frozenset(hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        why = self._refused(scope["method"], headers)
        if why:
            answer = JSONResponse({"error": why}, status_code=HTTPStatus.FORBIDDEN)
            await answer(scope, receive, _dressed(send))
            return
        await self.app(scope, _bounded(receive), _dressed(send))

    def _refused(self, method: str, headers: Headers) -> str:
        host = headers.get("host", "")
        if host not in self.hosts:
            return "this server does not go by that name"
        if method in ("GET", "HEAD"):
            return ""
        if headers.get("origin") != f"http://{host}":  # every browser says it of a POST (Fetch, "Origin" header)
            return "this was asked by another page"
        return ""


def _bounded(receive: Receive) -> Receive:
    """``receive`` that ends a request which sends more than `MOST_BYTES`."""
    seen = 0

    async def bounded() -> Message:
        nonlocal seen
        message = await receive()
        seen += len(message.get("body", b""))
        return {"type": "http.disconnect"} if seen > MOST_BYTES else message

    return bounded


def _dressed(send: Send) -> Send:
    """``send`` that adds the headers which every answer has."""

    async def dressed(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            headers.setdefault("Content-Security-Policy", POLICY)
            headers["X-Content-Type-Options"] = "nosniff"
            headers["Referrer-Policy"] = "no-referrer"
            headers["Cross-Origin-Resource-Policy"] = "same-origin"
            headers["Cache-Control"] = "no-store"
        await send(message)

    return dressed


class Tries:
    """Who tried wrong codes lately: from an address that did so too often no code is accepted for a while."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._wrong: OrderedDict[str, deque[float]] = OrderedDict()

    def exhausted(self, address: str) -> bool:
        """Whether it has to wait."""
        return len(self._recent(address)) >= WRONG_TRIES

    def wrong(self, address: str) -> None:
        """One more."""
        self._recent(address).append(self._clock())
        self._wrong.move_to_end(address)
        while len(self._wrong) > MOST_ADDRESSES:
            self._wrong.popitem(last=False)

    def _recent(self, address: str) -> deque[float]:
        found = self._wrong.setdefault(address, deque(maxlen=WRONG_TRIES))
        while found and found[0] < self._clock() - WINDOW_SECONDS:
            found.popleft()
        return found
