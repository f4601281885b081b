"""The page of a race that happens: everybody who reaches it sees it, whoever has its link starts a round.

What races is another process, root's: it tells this one by a pipe what is known of the race, and hears by a second
pipe that a round is to start, one byte each time and nothing else. This one is never root.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import time
from dataclasses import dataclass, field
from http import HTTPStatus
from secrets import compare_digest
from typing import Any

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from lab.classroom.session.course import Refused
from lab.classroom.session.store import hashed
from lab.classroom.web.address import hosts, url
from lab.classroom.web.guard import Guard, Tries
from lab.classroom.web.hub import Hub
from lab.classroom.web.running import import_all, until_signalled
from lab.classroom.web.site import body, error, from_where, gone, refused, stream, too_often
from lab.host.identity import privilege

LONGEST_LINE = 4 << 20
FRAMED_NOWHERE = "frame-ancestors 'none'"
"""Of the page; the rest of its policy stands in it."""
GO = b"g"


@dataclass(slots=True, kw_only=True)
class RaceSite:
    """The server's answers. ``key`` is the digest of what its link ends with; ``starts`` a pipe that starts a round.

    ``told`` is the last that was heard of the race: ``race`` as data (or None before it is known), the ``place`` of
    the round in it, how many ``rounds`` there are, the ``state`` (ready, running, stopping, done), and ``at`` how
    many seconds after its start that was.
    """

    address: str
    page: str
    key: str
    starts: int
    hub: Hub = field(default_factory=Hub)
    tries: Tries = field(default_factory=Tries)
    told: dict[str, Any] = field(default_factory=lambda: {"race": None, "state": "", "at": -1.0})
    heard_at: float = 0.0
    asked: int = 0  # the last round that somebody started

    def application(self) -> Guard:
        """As ASGI has it."""
        routes = [
            Route("/", self.show),
            Route("/enter", self.enter, methods=["POST"]),
            Route("/start", self.start, methods=["POST"]),
            Route("/events", self.events),
        ]
        handlers: dict[Any, Any] = {Refused: refused, ClientDisconnect: gone}
        return Guard(Starlette(routes=routes, exception_handlers=handlers), hosts(self.address))

    async def show(self, request: Request) -> Response:
        headers = {"Content-Security-Policy": FRAMED_NOWHERE}
        return Response(self.page, media_type="text/html", headers=headers)

    async def enter(self, request: Request) -> Response:
        sent = await body(request, key=str)
        if self.tries.exhausted(from_where(request)):
            return too_often()
        if not compare_digest(hashed(sent["key"]), self.key):
            self.tries.wrong(from_where(request))
            return error("that is not the link that lab race printed", HTTPStatus.FORBIDDEN)
        answer = JSONResponse({})
        answer.set_cookie(self._cookie(), sent["key"], httponly=True, samesite="strict")
        return answer

    async def start(self, request: Request) -> Response:
        if not self._is_mine(request):
            return error("open the link that lab race printed", HTTPStatus.FORBIDDEN)
        sent = await body(request, round=int)
        number = self.told.get("place", -1) + 1
        if self.told["state"] != "ready" or sent["round"] != number or self.asked == number:
            return error("that round can't be started now", HTTPStatus.CONFLICT)
        self.asked = number
        os.write(self.starts, GO)
        return JSONResponse({})

    async def events(self, request: Request) -> Response:
        mine = self._is_mine(request)

        def view() -> dict[str, Any]:
            late = time.monotonic() - self.heard_at if self.told["state"] == "running" else 0.0
            return self.told | {"mine": mine, "at": self.told["at"] + late}

        return stream(self.hub, view)

    def hear(self, line: bytes) -> None:
        """What the process that races told."""
        self.told = json.loads(line)
        self.heard_at = time.monotonic()
        self.hub.changed()

    def _cookie(self) -> str:
        return f"lab-race-{self.address.rpartition(':')[2]}"

    def _is_mine(self, request: Request) -> bool:
        return compare_digest(hashed(request.cookies.get(self._cookie(), "")), self.key)


def serve_race(listening: socket.socket, heard: int, starts: int) -> None:
    """Serve until a signal comes, or what races has closed its end of the pipe ``heard``. The first line of that is
    the key and the page as JSON; every other one is `RaceSite.told`.

    Raises LabError where root can't be left.
    """
    import_all()
    privilege.leave_root()
    asyncio.run(_serve(listening, heard, starts))


async def _serve(listening: socket.socket, heard: int, starts: int) -> None:
    reader = asyncio.StreamReader(limit=LONGEST_LINE)
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(heard, "rb", buffering=0)
    )
    try:
        first = json.loads(await reader.readline() or b"{}")
        if not first:
            return
        site = RaceSite(address=url(listening), page=first["page"], key=hashed(first["key"]), starts=starts)

        async def follow(end: Any) -> None:
            while (line := await reader.readline()).endswith(b"\n"):
                site.hear(line)
            end()

        await until_signalled(site.application(), site.hub, listening, lambda: None, follow)
    finally:
        transport.close()
