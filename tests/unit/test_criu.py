"""criu: whether it can work here, what it is told, what it says. It works for real in a guest: inside_criu.py."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from lab.errors import CommandError, LaunchError
from lab.host.survey import criu
from lab.host.survey.criu import reason
from lab.model import Completed, Process
from lab.runtime import bundle
from lab.runtime.launcher import checkpoint
from lab.runtime.launcher.checkpoint import CriuCheckpoint

TOO_NEW = """\
Error (criu/util.c:642): exited, status=1
Warn  (criu/kerndat.c:1132): Can't keep kdat cache on non-tempfs
Error (criu/vdso.c:381): vdso: Unexpected rt vDSO area bounds
Error (criu/kerndat.c:1615): kerndat_vdso_fill_symtable failed when initializing kerndat."""
SAVED = CriuCheckpoint(
    images=Path("/s/images"), kernel=Path("/s/kernel"), upper=Path("/s/upper"),
    streams=("file[1f:4]", "file[2a:10]", "file[2a:11]"),
)  # fmt: skip


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    """What was found out is asked for again."""
    criu.obstacle.cache_clear()
    criu.look.cache_clear()
    yield
    criu.obstacle.cache_clear()
    criu.look.cache_clear()


def test_the_reason_is_the_first_error_that_is_none_of_its_probes() -> None:
    assert reason(TOO_NEW.splitlines()) == "vdso: Unexpected rt vDSO area bounds"
    assert reason(["(00.83) Error (criu/mount.c:3850): mnt: The root", "Error (b:1): b"]) == "mnt: The root"
    assert reason(["all is well", "Error without a place"]) == ""


def test_a_log_that_is_missing_gives_no_reason(tmp_path: Path) -> None:
    assert criu.reason_in(tmp_path / "criu.log") == ""
    error = LaunchError("container x: criu ended with 1", exit_code=125)
    assert checkpoint.failure(error, tmp_path) is error
    (tmp_path / checkpoint.LOG).write_text(TOO_NEW)
    told = checkpoint.failure(error, tmp_path)
    assert (told.message, told.exit_code) == (
        "container x: criu ended with 1: vdso: Unexpected rt vDSO area bounds",
        125,
    )


def test_it_is_asked_and_says_why_it_can_not(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(argv: list[str], **_: Any) -> Completed:
        assert argv[-1] == "/sbin/criu"
        raise CommandError("unshare failed with exit code 1", detail=TOO_NEW)

    monkeypatch.setattr(criu, "program", lambda: "/sbin/criu")
    monkeypatch.setattr(criu, "run", refuse)
    assert criu.obstacle() == "criu check fails: vdso: Unexpected rt vDSO area bounds"
    check = criu.check()
    assert (check.ok, check.remedy, check.required_by) == (False, criu.REMEDY, ())


def test_who_may_not_even_ask_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> Completed:
        raise CommandError(
            "unshare failed with exit code 1", detail="unshare: unshare failed: Operation not permitted"
        )

    monkeypatch.setattr(criu, "program", lambda: "/sbin/criu")
    monkeypatch.setattr(criu, "run", refuse)
    assert criu.obstacle() == "criu check fails: unshare: unshare failed: Operation not permitted"


def test_it_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def answer(argv: list[str], **_: Any) -> Completed:
        asked.append(argv)
        return Completed(exit_code=0, stdout=b"the kernel", stderr=b"")

    monkeypatch.setattr(criu, "program", lambda: "/sbin/criu")
    monkeypatch.setattr(criu, "run", answer)
    assert (criu.obstacle(), criu.obstacle(), criu.look()) == ("", "", b"the kernel")
    assert len(asked) == 1
    assert criu.check().ok


def test_where_it_is_missing_the_remedy_is_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(criu, "program", lambda: None)
    assert (criu.obstacle(), criu.check().remedy[:20]) == ("criu is not installed", "apt-get install criu")


def test_a_home_that_it_could_not_see_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(criu, "program", lambda: "/sbin/criu")
    monkeypatch.setenv("LAB_HOME", "/run/lab")
    assert criu.obstacle() == "LAB_HOME is below /run, which criu does not get to see"


def test_each_restored_one_is_given_what_is_its_own() -> None:
    mounts = [bundle.bind(f"/tmp/{name}/hosts", "/etc/hosts", read_only=False) for name in ("a", "b")]
    first, second = (
        checkpoint.restore_command(
            SAVED, bundle.container_config(Process(argv=("x",)), extra_mounts=[mount]), "/root", Path(f"/told/{name}")
        )
        for name, mount in zip("ab", mounts, strict=True)
    )
    assert {a for a, b in zip(first, second, strict=True) if a != b} == {
        "/told/a", "/told/a/pid", "mnt[/etc/hosts]:/tmp/a/hosts",
    }  # fmt: skip
    inherited = [word for before, word in pairwise(first) if before == "--inherit-fd"]
    assert inherited == ["fd[3]:file[1f:4]", "fd[4]:file[2a:10]", "fd[5]:file[2a:11]"]


def test_what_a_saved_one_takes_of_the_disk(tmp_path: Path) -> None:
    for name in ("images/pages-1.img", "upper/root/file"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_bytes(bytes(8192))
    (tmp_path / "kernel").write_bytes(b"x")
    saved = CriuCheckpoint(
        images=tmp_path / "images", kernel=tmp_path / "kernel", upper=tmp_path / "upper", streams=()
    )
    assert saved.size_bytes >= 2 * 8192 + 512
    assert saved.files == (saved.images, saved.kernel, saved.upper)
