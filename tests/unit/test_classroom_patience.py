"""Connections that ask for nothing: closed, while one that is answered stays."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from lab.classroom.web import patient
from lab.classroom.web.address import listen
from lab.classroom.web.hub import Hub
from lab.classroom.web.running import until_signalled

WHOLE = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n"


async def application(
    scope: dict[str, object], receive: Callable[..., Awaitable], send: Callable[..., Awaitable]
) -> None:
    """Reads what is sent to the end, and answers in two pieces."""
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"10")]})
    await send({"type": "http.response.body", "body": b"first", "more_body": True})
    if scope["path"] == "/slow":
        await asyncio.sleep(4 * patient.REQUEST_SECONDS)
    await send({"type": "http.response.body", "body": b" last"})


async def answered(port: int, *sent: bytes) -> bytes:
    """What comes until the server closes. Raises TimeoutError where it does not."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        for each in sent:
            writer.write(each)
            await writer.drain()
            await asyncio.sleep(0.01)
        return await asyncio.wait_for(reader.read(), 10)
    finally:
        writer.close()


@pytest.mark.parametrize(
    ("sent", "wanted"),
    [
        ([], b""),
        ([b"GET / HT"], b""),
        ([WHOLE, b"x"], b""),
        ([WHOLE, b"xx", b"GET / HT"], b"first last"),
        ([b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n"], b"first last"),
    ],
    ids=["silent", "half-a-line", "half-a-body", "half-a-second-one", "a-slow-answer"],
)
def test_a_connection_that_asks_for_nothing_whole_is_closed(
    sent: list[bytes], wanted: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patient, "REQUEST_SECONDS", 0.5)
    told = []

    async def ask(end: Callable[[], object]) -> None:
        try:
            told.append(await answered(listening.getsockname()[1], *sent))
        finally:
            end()

    with listen("127.0.0.1", 0) as listening:
        asyncio.run(until_signalled(application, Hub(), listening, lambda: None, ask))
    assert told, "it stayed"
    assert told[0].partition(b"\r\n\r\n")[2] == wanted
