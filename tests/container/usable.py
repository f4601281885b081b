"""Whether a backend can be had here, and a site for tests of it that leaves nothing behind."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import pytest
from host_state import assert_unchanged, snapshot
from tiny import tiny_image

from lab.backends.site import Site
from lab.errors import LabError
from lab.images.store import Image
from lab.instance import Backend


@cache
def trouble(kind: type[Backend]) -> str:
    """Why it can't be had here, in a line; "" where it can, and is fetched."""
    try:
        for check in kind.check():
            if not check.ok:
                return f"{check.name} ({check.found})"
        kind.fetch(print)
    except LabError as error:
        return f"{kind.title}: {error}"
    return ""


@contextmanager
def unchanged_host(lacking: str) -> Iterator[Site]:
    """A site, after which the host is as it was; skips where something is ``lacking``."""
    if lacking:
        pytest.skip(lacking)
    before = snapshot()
    with Site.open() as opened:
        yield opened
    assert_unchanged(before)


def fixtures(kind: type[Backend]) -> tuple[Any, Any, Any]:
    """``usable``, ``site`` and ``image`` of a file about that backend: every test skips, or fails where all is
    required, if it can't be had; one site for all, after which the host is as it was; the tiny image, prepared.
    """

    @pytest.fixture(autouse=True)
    def usable(missing: Callable[[str], None]) -> None:
        if lacking := trouble(kind):
            missing(lacking)

    @pytest.fixture(scope="module")
    def site() -> Iterator[Site]:
        with unchanged_host(trouble(kind)) as opened:
            yield opened

    @pytest.fixture(scope="module")
    def image(site: Site) -> Image:
        built = tiny_image(site.store)
        site.backend(kind.name).prepare(built)
        return built

    return usable, site, image


def heard_until(end: socket.socket, word: str) -> str:
    """What comes from the other end until it has said ``word``."""
    end.settimeout(120)
    text = ""
    while word not in text:
        text += end.recv(4096).decode()
    return text
