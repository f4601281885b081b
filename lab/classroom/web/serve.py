"""The server's life: an address, a session, root left behind, and an end at the first signal.

What answers requests is never root: a root's process becomes a user that no account has before it reads the first
one, and so can write nothing but the session's files. Everything it shows was read before.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import ipaddress
import os
import secrets
import socket
import struct
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from lab.classroom.questions.showing import Showing
from lab.classroom.session.course import Course
from lab.classroom.session.store import LOCK, Store, hashed, prepare
from lab.classroom.web.site import Files, Site
from lab.errors import LabError, UsageError
from lab.host import private, privilege

LOOPBACK = "127.0.0.1"
BACKLOG = 512
MOST_KEYS = 8
"""Links of earlier starts that still lead the teacher in."""
KINDS = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}
FILES = Path(__file__).parent / "files"
SIOCGIFADDR = 0x8915  # netdevice(7)
ENDS_WITHIN_SECONDS = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """What is up: ``address`` for phones (http://…), ``teacher`` the link for the teacher alone, ``code`` to join.
    ``answered_by`` is the run that the session began with, where that is another one than is served now.
    """

    address: str
    teacher: str
    code: str
    folder: Path
    joined: int
    answered_by: str


def own_addresses() -> dict[str, str]:
    """The IPv4 addresses of this host's interfaces, by interface: netdevice(7), SIOCGIFADDR."""
    found = {}
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        for _, name in socket.if_nameindex():
            try:
                answer = fcntl.ioctl(asking, SIOCGIFADDR, struct.pack("256s", name.encode()[:15]))
            except OSError:
                continue  # it has none
            found[name] = socket.inet_ntoa(answer[20:24])
    return found


def listen(bind: str, port: int) -> socket.socket:
    """A socket that listens on one IPv4 address of this host's: whoever connects waits until it is served.

    Raises UsageError, LabError.
    """
    try:
        address = ipaddress.IPv4Address(bind)
    except ValueError as error:
        raise UsageError(f"{bind!r} is no IPv4 address", hint=_ours()) from error
    if address.is_unspecified:  # then any name could be ours, and the picture to be scanned would lead nowhere
        raise UsageError("every address at once is too many", hint=f"name one: {_ours()}")
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((str(address), port))
        listening.listen(BACKLOG)
    except OSError as error:
        listening.close()
        if error.errno == errno.EADDRNOTAVAIL:
            raise UsageError(f"{bind} is no address of this host", hint=_ours()) from error
        hint = "--port N takes another" if error.errno == errno.EADDRINUSE else "--port N: 1024 at least without root"
        raise LabError(f"{bind}:{port} can't be served: {error.strerror}", hint=hint) from error
    return listening


def _ours() -> str:
    return "--bind with one of: " + ", ".join(f"{address} ({name})" for name, address in own_addresses().items())


def files() -> Files:
    """What the pages consist of, read once."""
    from lab.reports.page.render import TEMPLATES

    paths = [*FILES.iterdir(), TEMPLATES / "report.css"]
    return {
        path.name: (path.read_bytes(), f"{KINDS[path.suffix]}; charset=utf-8")
        for path in paths
        if path.suffix in KINDS
    }


def serve(
    name: str,
    material: Mapping[str, Any],
    *,
    listening: socket.socket,
    keep_days: int,
    showing: Showing | None = None,
    live: int | None = None,
    up: Callable[[Served], object],
) -> None:
    """Serve the session ``name``, a new one about ``material`` or the one that there is, until a signal ends it.

    ``showing`` is what there is to look at of the material's run; a session that began with another run shows none of
    it. ``live`` is the end of a pipe from which what is being measured is heard. ``listening`` is of `listen`, and
    the caller's to close. ``up`` is told once it answers. Raises UsageError or LabError when that is impossible.
    """
    pages = files()
    folder = prepare(name, (privilege.NOBODYS,) * 2 if privilege.is_system_wide() else None)
    _import_all()
    privilege.leave_root()
    _require_way_to(folder)
    with _alone(folder):
        store = Store(folder)
        try:
            course = Course.begin(store, material, keep_days)
            key = secrets.token_urlsafe(32)
            store.put(keys=[*store.get("keys", []), hashed(key)][-MOST_KEYS:])
            if live is not None and not course.material.get("live"):
                raise UsageError(f"{name} began with a recorded run", hint="--session NAME begins another one")
            if live is None:
                course.settle()
            fits = live is not None or all(course.material[key] == material[key] for key in ("run", "where", "day"))
            host, own_port = listening.getsockname()
            address = f"http://{host}:{own_port}"
            site = Site(course=course, address=address, files=pages, showing=(fits and showing) or Showing())
            told = Served(
                address=address, teacher=f"{address}/teach#{key}", code=course.code, folder=folder,
                joined=store.number(), answered_by="" if fits else course.material["run"],
            )  # fmt: skip
            asyncio.run(_until_signalled(site, listening, lambda: up(told), live))
        finally:
            store.close()


def _import_all() -> None:
    """All that serving imports, some of it late: afterwards lab's own files may be out of reach."""
    import encodings.idna
    import json

    import anyio._backends._asyncio
    import segno
    import uvicorn.lifespan.off
    import uvicorn.protocols.http.h11_impl

    import lab.classroom.web.live

    segno.make(json.dumps(encodings.idna.__name__)).svg_inline()
    assert uvicorn.protocols.http.h11_impl
    assert anyio._backends._asyncio
    assert lab.classroom.web.live


def _require_way_to(folder: Path) -> None:
    if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        raise LabError(
            f"{folder} can't be reached by user {privilege.user_id()}, whom lab class serve becomes as root",
            hint=f"chmod o+x the folders above it, or serve as an ordinary user; LAB_HOME is {folder.parent.parent}",
        )


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Nobody else serves the session meanwhile. Raises LabError when somebody does."""
    descriptor = private.lock_file(folder / LOCK)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as error:
        raise LabError(f"{folder.name} is being served already", hint="--session NAME begins another one") from error
    finally:
        os.close(descriptor)


async def _until_signalled(site: Site, listening: socket.socket, up: Callable[[], object], live: int | None) -> None:
    import uvicorn

    class Server(uvicorn.Server):
        def handle_exit(self, sig: int, frame: FrameType | None) -> None:
            site.hub.close()  # streams have no end of their own
            super().handle_exit(sig, frame)

        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            up()

    config = uvicorn.Config(
        site.application(),
        http="h11",
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
    heard = None
    if live is not None:
        from lab.classroom.web.live import Live, follow

        now = Live()
        site.live = now.told
        heard = asyncio.ensure_future(follow(live, site, now))
    try:
        await Server(config).serve(sockets=[listening])
    finally:
        if heard is not None:
            heard.cancel()
            await asyncio.wait([heard])
