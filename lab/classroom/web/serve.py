"""The server's life: an address, a session, root left behind, and an end at the first signal.

What answers requests is never root: a root's process becomes a user that no account has before it reads the first
one, and so can write nothing but the session's files. Everything it shows was read before.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import secrets
import socket
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.classroom.questions.showing import Showing
from lab.classroom.session.course import Course
from lab.classroom.session.store import LOCK, Store, hashed, prepare
from lab.classroom.web.address import url
from lab.classroom.web.running import import_all, until_signalled
from lab.classroom.web.site import Files, Site
from lab.errors import LabError, UsageError
from lab.host.identity import private, privilege

MOST_KEYS = 8
"""Links of earlier starts that still lead the teacher in."""
KINDS = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}
FILES = Path(__file__).parent / "files"


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
            address = url(listening)
            site = Site(course=course, address=address, files=pages, showing=(fits and showing) or Showing())
            told = Served(
                address=address, teacher=f"{address}/teach#{key}", code=course.code, folder=folder,
                joined=store.number(), answered_by="" if fits else course.material["run"],
            )  # fmt: skip
            meanwhile = None if live is None else _hearing(live, site)
            asyncio.run(until_signalled(site.application(), site.hub, listening, lambda: up(told), meanwhile))
        finally:
            store.close()


def _hearing(descriptor: int, site: Site) -> Callable[[object], Coroutine[Any, Any, None]]:
    from lab.classroom.web.live import Live, follow

    now = Live()
    site.live = now.told
    return lambda _: follow(descriptor, site, now)


def _import_all() -> None:
    import json

    import segno

    import lab.classroom.web.live

    import_all()
    segno.make(json.dumps(lab.classroom.web.live.__name__)).svg_inline()


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
