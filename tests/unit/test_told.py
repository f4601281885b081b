"""What comes out of an instance as the errno of an execve(2) is checked before it is believed."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lab.backends.libpod import container as libpod
from lab.backends.sentry import container as sentry
from lab.backends.support.programs import children, ocicontainer
from lab.backends.support.programs.enclosed import failure
from lab.backends.support.programs.ocicontainer import OciContainer
from lab.errors import LaunchError
from lab.host.execution.told import errno_told
from lab.model import Process
from lab.runtime import bundle
from lab.runtime.launcher.spec import Spec
from lab.runtime.rootfs.layers import Overlay

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


@pytest.mark.parametrize("text", [text.decode("utf-8", "replace") for text in ODD[1:]])
def test_what_the_helper_of_bwrap_and_of_nspawn_tells(text: str, tmp_path: Path) -> None:
    spec = Spec(name="it", config=bundle.container_config(Process(argv=("true",))), root=Overlay(lower=(tmp_path,)))
    nobody: Any = None
    with pytest.raises(LaunchError, match="no errno"):
        raise failure(spec, "bwrap", text, nobody, tmp_path)
    assert "No such file" in f"{failure(spec, 'bwrap', '2', nobody, tmp_path)}"


@pytest.mark.parametrize("text", ODD[1:])
def test_what_the_helper_of_another_runtime_tells(
    text: bytes, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Of a runtime that makes a command and says nothing else of it."""
    status, end = os.pipe()
    os.write(end, text)
    container: Any = object.__new__(OciContainer)
    container.__dict__ |= {"name": "it", "runtime": "runc", "_place": tmp_path}
    monkeypatch.setattr(OciContainer, "wait", lambda *_given: None)
    monkeypatch.setattr(OciContainer, "_write_process", lambda *_given: None)
    monkeypatch.setattr(OciContainer, "_words", lambda *_given, **_named: ())
    monkeypatch.setattr(ocicontainer, "pipe", lambda _opened: (status, end))
    monkeypatch.setattr(children, "adopt", lambda *_given: (0, b"", os.dup(status)))
    monkeypatch.setattr(ocicontainer, "Child", lambda pidfd: SimpleNamespace(close=lambda: os.close(pidfd)))
    process: Any = SimpleNamespace(args=("true",))
    with pytest.raises(LaunchError, match="no errno"):
        container._exec(process, [])
    os.close(status)


def _of_gvisor(status: int) -> int | None:
    try:
        return errno_told(sentry._answer(status, status, "it"))
    except LaunchError:
        return None


def _of_podman(status: int) -> int | None:
    return libpod._told(status, status)
