"""What comes out of an instance as the errno of an execve(2) is checked before it is believed."""

from __future__ import annotations

import errno
import os

import pytest

from lab.backends.libpod import container as libpod
from lab.backends.sentry import container as sentry
from lab.errors import LaunchError
from lab.host.execution.told import errno_told

ODD = [b"", b"-2", b" 2", b"2\n", b"x", b"\xff", b"1" * 5000, b"4096", "\u0662".encode()]


def test_an_errno() -> None:
    assert errno_told(b"2") == errno_told("2") == errno.ENOENT
    assert errno_told("0") == 0


@pytest.mark.parametrize("text", ODD)
def test_what_is_none(text: bytes) -> None:
    for each in (text, text.decode("utf-8", "replace")):
        with pytest.raises(LaunchError, match="no errno"):
            errno_told(each)


@pytest.mark.parametrize("text", ODD[1:])
def test_what_the_helper_of_gvisor_and_of_podman_tells(text: bytes) -> None:
    """Neither is an error of lab's own."""
    for ask in (_of_gvisor, _of_podman):
        status, end = os.pipe()
        os.write(end, text)
        os.close(end)
        try:
            assert ask(status) is None
        finally:
            os.close(status)


def _of_gvisor(status: int) -> int | None:
    try:
        return errno_told(sentry._answer(status, status, "it"))
    except LaunchError:
        return None


def _of_podman(status: int) -> int | None:
    return libpod._told(status, status)
