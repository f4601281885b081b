"""A server's life: from the first request that it answers to the first signal, and what is done meanwhile."""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import Callable, Coroutine
from types import FrameType
from typing import TYPE_CHECKING, Any

from lab.classroom.web.hub import Hub

if TYPE_CHECKING:
    from starlette.types import ASGIApp

ENDS_WITHIN_SECONDS = 1


def import_all() -> None:
    """All that serving imports late: afterwards lab's own files may be out of reach."""
    import encodings.idna

    import anyio._backends._asyncio
    import uvicorn.lifespan.off

    import lab.classroom.web.patient

    assert encodings.idna
    assert uvicorn.lifespan.off
    assert lab.classroom.web.patient
    assert anyio._backends._asyncio


async def until_signalled(
    application: ASGIApp,
    hub: Hub,
    listening: socket.socket,
    up: Callable[[], object],
    meanwhile: Callable[[Callable[[], object]], Coroutine[Any, Any, object]] | None = None,
) -> None:
    """Serve ``application`` until a signal comes. ``up`` is called once it answers. ``meanwhile`` runs beside it, and
    is given what ends the server; it is cancelled in the end.
    """
    import uvicorn

    from lab.classroom.web.patient import Patient

    class Server(uvicorn.Server):
        def handle_exit(self, sig: int, frame: FrameType | None) -> None:
            hub.close()  # streams have no end of their own
            super().handle_exit(sig, frame)

        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            up()

    config = uvicorn.Config(
        application,
        http=Patient,
        ws="none",
        loop="asyncio",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=False,
        proxy_headers=False,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=ENDS_WITHIN_SECONDS,
    )
    sys.stdout.flush()
    server = Server(config)

    def end() -> None:
        hub.close()
        server.should_exit = True

    task = asyncio.ensure_future(meanwhile(end)) if meanwhile is not None else None
    try:
        await server.serve(sockets=[listening])
    finally:
        if task is not None:
            task.cancel()
            await asyncio.wait([task])
