"""What holds environments, output or locks is the owner's alone, and what an older lab left open is closed."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.backends.support.output import Output
from lab.errors import LabError
from lab.host import compiler, home
from lab.host.identity import private, privilege
from lab.host.session.ledger import Session
from lab.images.space import locks
from lab.inside import build
from lab.model import Limits, Process
from lab.supervisor import record as records
from lab.supervisor.record import InstanceRecord, Pid


@pytest.fixture(autouse=True)
def liberal_umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def record() -> InstanceRecord:
    process = Process(argv=("app",), environment={"PASSWORD": "secret"})
    return InstanceRecord(
        name="web", id="0" * 12, backend="container", image="i", digest="d", process=process, limits=Limits(),
        created=1.0, supervisor=Pid.of(os.getpid()),
    )  # fmt: skip


@pytest.fixture
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LAB_HOME", str(tmp_path))
    return tmp_path


def test_a_record_is_the_owners_alone(own_home: Path) -> None:
    records.reserve(record())
    place = records.folder("web")
    assert (mode(place), mode(place / records.RECORD)) == (0o700, 0o600)
    records.write(record())
    assert mode(place / records.RECORD) == 0o600


def test_an_open_one_is_closed_when_it_is_found(own_home: Path) -> None:
    records.reserve(record())
    place = records.folder("web")
    (place / "stdout.log").write_text("secret")
    for path, bits in ((place, 0o755), (place / records.RECORD, 0o644), (place / "stdout.log", 0o644)):
        path.chmod(bits)
    assert [found.name for found in records.records()] == ["web"]
    assert [mode(path) for path in (place, place / records.RECORD, place / "stdout.log")] == [0o700, 0o600, 0o600]


def test_output_is_the_owners_alone(tmp_path: Path) -> None:
    log = tmp_path / "stdout.log"
    log.touch(mode=0o644)
    with Output(log):
        assert mode(log) == 0o600


def test_nobody_else_holds_a_lock(tmp_path: Path) -> None:
    lock = tmp_path / "writers"
    os.close(locks.hold(lock, create=True))
    assert mode(lock) == 0o600
    lock.chmod(0o644)
    os.close(locks.hold(lock, create=True))
    assert mode(lock) == 0o600
    os.close(private.lock_file(tmp_path / "other"))
    assert mode(tmp_path / "other") == 0o600


def test_the_lock_on_the_helper_is_the_owners_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiler, "run", lambda argv, **_: Path(argv[argv.index("-o") + 1]).touch())  # at once
    (tmp_path / "inside").mkdir()
    (tmp_path / "inside" / ".lock").touch(mode=0o666)
    build.program(tmp_path)
    assert mode(tmp_path / "inside" / ".lock") == 0o600


# /tmp, where everybody may be first


@pytest.fixture
def shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What /tmp/lab-UID is for an ordinary user."""
    own = tmp_path / f"lab-{os.geteuid()}"
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    monkeypatch.setattr(privilege, "is_system_wide", lambda: False)
    monkeypatch.setattr(home, "SHARED", str(tmp_path / "lab-{}"))
    return own


def test_a_folder_of_another_is_refused(shared: Path) -> None:
    shared.symlink_to("/root")
    with pytest.raises(LabError, match="somebody else"):
        home.runtime_root()
    shared.unlink()
    shared.touch()
    with pytest.raises(LabError, match="somebody else"):
        Session.open()
    shared.unlink()
    if os.geteuid() != 0:
        return
    shared.mkdir()
    os.chown(shared, 65534, 65534)
    with pytest.raises(LabError, match="somebody else"):
        Session.open()


def test_ones_own_is_made_and_closed_to_others(shared: Path) -> None:
    shared.mkdir(mode=0o777)
    with Session.open() as session:
        assert session.directory.is_relative_to(shared)
        assert (mode(shared), mode(session.directory)) == (0o700, 0o700)
    shared.rename(shared.with_name("old"))
    with Session.open():
        assert mode(shared) == 0o700
