"""A TCP port of the host (of 127.0.0.1, unless asked otherwise) that leads into lab's network: a small proxy.

No firewall rule is made.

The listening sockets are made in the host's namespace. The thread that accepts lives in lab's, so the
connections it makes start there; a socket stays where it was made. Measurements never pass through here.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import struct
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from ipaddress import IPv4Address
from typing import Any, TypeVar

from lab.errors import LabError
from lab.host.closing import Closing
from lab.network.namespace import Namespace

T = TypeVar("T")
log = logging.getLogger(__name__)

LOOPBACK = "127.0.0.1"
CHUNK_BYTES = 65536
BACKLOG = 128
RESET = struct.pack("ii", 1, 0)  # struct linger: closing sends RST (socket(7), SO_LINGER)


class Publication(Closing):
    """One published port, open until `close`."""

    def __init__(self, publisher: Publisher, listener: socket.socket, target: tuple[str, int]) -> None:
        self.address: str = listener.getsockname()[0]
        self.host_port: int = listener.getsockname()[1]
        self._publisher = publisher
        self._listener = listener
        self._target = target
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False

    @property
    def url(self) -> str:
        host = f"[{self.address}]" if ":" in self.address else self.address
        return f"http://{host}:{self.host_port}"

    def close(self) -> None:
        """Stop listening and cut what is connected. Idempotent."""
        if not self._closed:
            self._closed = True
            self._publisher._run(self._end())

    # In the publisher's thread

    async def _begin(self) -> None:
        # Not sock_accept(): cancelled at the wrong moment it loses a connection without closing it.
        asyncio.get_running_loop().add_reader(self._listener, self._accept)

    async def _end(self) -> None:
        asyncio.get_running_loop().remove_reader(self._listener)
        self._listener.close()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _accept(self) -> None:
        try:
            near, _ = self._listener.accept()
        except OSError as error:  # it gave up while it waited, or descriptors have run out
            log.debug("port %d: %s", self.host_port, error)
            return
        near.setblocking(False)
        task = asyncio.get_running_loop().create_task(self._forward(near))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(lambda _: near.close())  # not in the task: it may be cancelled before it begins

    async def _forward(self, near: socket.socket) -> None:
        """Copy both ways until both sides have said all they have to say, or one of them breaks.

        Where nobody serves the port inside, ``near`` is reset: an end without a word would look like an empty answer.
        """
        with socket.socket() as far:
            far.setblocking(False)
            try:
                try:
                    await asyncio.get_running_loop().sock_connect(far, self._target)
                except OSError:
                    near.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                    raise
                async with asyncio.TaskGroup() as both:
                    both.create_task(_copy(near, far))
                    both.create_task(_copy(far, near))
            except* OSError as group:
                log.debug("port %d to %s:%d: %s", self.host_port, *self._target, group.exceptions[0])


class Publisher:
    """The thread that serves every published port of one session."""

    def __init__(self, namespace: Namespace) -> None:
        self._loop = asyncio.new_event_loop()
        self._publications: list[Publication] = []
        entered: Future[None] = Future()
        self._thread = threading.Thread(
            target=self._serve, args=(namespace, entered), name="lab-publish", daemon=True
        )
        self._thread.start()
        try:
            entered.result()
        except OSError as error:
            self._loop.close()
            raise LabError(f"can't publish ports: {error}") from error

    def publish(self, host_port: int, address: IPv4Address, port: int, *, on: str = LOOPBACK) -> Publication:
        """Listen on ``host_port`` (0: any free one) of the host's address ``on``. Raises LabError when it can't."""
        publication = Publication(self, _listen(on, host_port), (str(address), port))
        self._run(publication._begin())
        self._publications.append(publication)
        return publication

    def close(self) -> None:
        """Close every publication and end the thread. Idempotent."""
        if self._loop.is_closed():
            return
        for publication in self._publications:
            publication.close()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _serve(self, namespace: Namespace, entered: Future[None]) -> None:
        try:
            namespace.enter()
        except OSError as error:
            entered.set_exception(error)
            return
        entered.set_result(None)
        self._loop.run_forever()

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()


async def _copy(source: socket.socket, sink: socket.socket) -> None:
    """Copy one way to the end, and pass the end on."""
    loop = asyncio.get_running_loop()
    while chunk := await loop.sock_recv(source, CHUNK_BYTES):
        await loop.sock_sendall(sink, chunk)
    sink.shutdown(socket.SHUT_WR)


def _listen(on: str, host_port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET6 if ":" in on else socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if listener.family == socket.AF_INET6:  # [::] is of IPv6 alone, as its text says
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind((on, host_port))
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise LabError(
                f"port {host_port} of {on} is in use", hint="choose another: -p HOST_PORT:PORT, or -p 0:PORT"
            ) from error
        hints = {
            errno.EADDRNOTAVAIL: "it is no address of this host: ip address",
            errno.EACCES: "ports below 1024 are root's: choose a higher one, or -p 0:PORT",
        }
        said = f"can't listen on port {host_port} of {on}: {error.strerror}"
        raise LabError(said, hint=hints.get(error.errno or 0, "")) from error
    return listener
