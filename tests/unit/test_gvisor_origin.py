"""Where gVisor's program comes from: which one is used, which is refused, and what is fetched from whom."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from bare import bare_host, program

from lab.backends import registry
from lab.backends.gvisor import Gvisor
from lab.backends.ociruntime import OciRuntime
from lab.backends.process import Process
from lab.backends.sentry import origin
from lab.commands.measuring import choose_backends
from lab.errors import BackendUnavailable, UsageError
from lab.images.debian import apt

Made = Callable[[Path, str], Path]


def runsc(folder: Path, version: str, name: str = "runsc") -> Path:
    """A program that says that it is a runsc of that version."""
    return program(folder / name, f"runsc version {version}", "create start state kill delete")


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A host without any, whose apt knows no Debian."""
    bare_host(tmp_path, monkeypatch)
    monkeypatch.setattr(registry, "_admitted", {})
    monkeypatch.setattr(registry, "_words", {})


def program_check() -> tuple[bool, str]:
    check = Gvisor._check_program()
    return check.ok, check.found


def test_the_hosts_own_comes_first_if_it_is_new_enough(tmp_path: Path) -> None:
    kept = runsc(tmp_path / "home/programs/runsc-1", "0.0~20240729.0")
    assert origin.SOURCE.find() is not None
    assert Gvisor.binary().path == kept
    own = runsc(tmp_path / "bin", "release-20250101.0")
    assert Gvisor.binary().path == own
    assert program_check()[0]


def test_the_hosts_own_is_passed_over_where_it_is_too_old(tmp_path: Path) -> None:
    own = runsc(tmp_path / "bin", "0.0~20221219.0")
    ok, found = program_check()
    assert not ok
    assert str(own) in found
    assert "20221219" in found
    with pytest.raises(UsageError):
        Gvisor.binary()
    runsc(tmp_path / "home/programs/runsc-1", "0.0~20240729.0")
    newest = runsc(tmp_path / "home/programs/runsc-2", "0.0~20260101.0")
    assert Gvisor.binary().path == newest
    assert program_check()[0]


def test_without_an_archive_it_is_refused_with_the_remedy_and_fetches_nothing(tmp_path: Path) -> None:
    assert not program_check()[0]
    told: list[str] = []
    with pytest.raises(BackendUnavailable) as caught:
        origin.SOURCE.fetch(told.append)
    assert "PATH" in caught.value.hint
    assert told == []
    assert not (tmp_path / "home").exists()


def test_an_archive_is_enough_to_be_usable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apt, "sources_beyond", lambda suite: f"Suites: {suite}\n")
    assert program_check()[0]


@pytest.mark.parametrize("version", ["0.0~20221219.0", "release-20240701.0", "1.1.5"])
def test_one_that_is_named_must_be_new_enough(tmp_path: Path, version: str) -> None:
    with pytest.raises(UsageError, match=r"older|can't be used"):
        Gvisor.settle({"binary": str(runsc(tmp_path, version, "own"))})


def test_as_an_ordinary_runtime_it_is_refused_with_the_line_to_type(tmp_path: Path) -> None:
    path = runsc(tmp_path, "0.0~20240729.0")
    check = OciRuntime.bring(str(path)).check()[-1]
    assert not check.ok
    assert check.remedy == f"--on gvisor --knob binary={path}"


@pytest.mark.parametrize("on", ["", "gvisor"])
def test_nothing_is_fetched_for_those_who_did_not_name_it(
    on: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fetched: list[str] = []
    for kind in (Gvisor, Process):
        monkeypatch.setattr(kind, "check", classmethod(lambda _: []))
    monkeypatch.setattr(Gvisor, "fetch", classmethod(lambda cls, _: fetched.append(cls.name)))
    monkeypatch.setattr(registry, "available", lambda: (Gvisor, Process))
    assert choose_backends(on, references=True) == ([on] if on else ["process"])
    assert fetched == ([on] if on else [])
    assert ("gvisor" in capsys.readouterr().err) == (not on)
