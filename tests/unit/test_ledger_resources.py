"""Each kind of resource is looked for and removed in its own way, and a session's files are their owner's alone."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lab.errors import LabError
from lab.host.cgroup import delegation
from lab.host.cgroup.hierarchy import Unused
from lab.host.session import ledger
from lab.host.session.ledger import Resource, ResourceKind, Session


@pytest.fixture(autouse=True)
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tmp_path / "run"
    monkeypatch.setattr(ledger, "runtime_root", lambda: root)
    return root


class Made:
    """Stands for whatever the kernel or systemd has: says whether it is there, and notes what is done to it."""

    def __init__(self, is_there: bool) -> None:
        self.is_there = is_there
        self.done: list[tuple[object, ...]] = []

    def exists(self, *words: object) -> bool:
        self.done.append(("exists", *words))
        return self.is_there

    def kill(self, seconds: float) -> None:
        self.done.append(("kill", seconds))

    def remove(self, *words: object) -> None:
        self.done.append(("remove", *words))


@contextmanager
def dead(session: Session) -> Iterator[None]:
    """Its owner is another process by now, which has ended."""
    file = session.directory / ledger.OWNER
    fields = json.loads(file.read_text())
    file.write_text(json.dumps({**fields, "started": fields["started"] - 1}))
    yield


@contextmanager
def locked(directory: Path) -> Iterator[int]:
    """Another cleaner's lock."""
    descriptor = os.open(directory, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


# -- kinds -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_there", [True, False])
@pytest.mark.parametrize("kind", [ResourceKind.CGROUP, ResourceKind.OTHER_CGROUP])
def test_a_group_is_killed_and_then_removed(
    kind: ResourceKind, is_there: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    group, trees = Made(is_there), []

    def opened(name: str, hierarchies: object = None) -> Made:
        assert name == "lab/0a0b0c0d/web"
        trees.append(type(hierarchies))
        return group

    monkeypatch.setattr(ledger.ControlGroup, "open", opened)
    resource = Resource(kind=kind, name="lab/0a0b0c0d/web")
    assert resource.exists() is is_there
    resource.remove()
    (killed, seconds), (removed, again) = group.done[1:]
    assert (killed, removed) == ("kill", "remove")
    assert seconds == again == ledger.KILL_TIMEOUT_SECONDS
    assert trees == 2 * [type(Unused.detect()) if kind is ResourceKind.OTHER_CGROUP else type(None)]


@pytest.mark.parametrize("is_there", [True, False])
def test_a_scope_and_a_trace_are_asked_for_by_their_names(is_there: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    scope, trace, named = Made(is_there), Made(is_there), []
    monkeypatch.setattr(ledger, "Scope", lambda name: named.append(name) or scope)
    monkeypatch.setattr(ledger, "tracefs", trace)
    for resource in (
        Resource(kind=ResourceKind.SCOPE, name="one.scope"),
        Resource(kind=ResourceKind.TRACE, name="lab-one"),
    ):
        assert resource.exists() is is_there
        resource.remove()
    assert named == ["one.scope", "one.scope"]
    assert scope.done == [("exists",), ("remove",)]
    assert trace.done == [("exists", "lab-one"), ("remove", "lab-one")]


def test_a_file_is_unlinked_and_may_be_gone_already(tmp_path: Path) -> None:
    (tmp_path / "socket").touch()
    resource = Resource(kind=ResourceKind.FILE, name=str(tmp_path / "socket"))
    assert resource.exists()
    resource.remove()
    assert not resource.exists()
    resource.remove()


def test_the_cleaner_is_no_leftover_of_itself() -> None:
    """A launcher is listed in the session that it removes."""
    mine, parents = (ledger.start_time(pid) or 0 for pid in (os.getpid(), os.getppid()))
    assert not Resource(kind=ResourceKind.PROCESS, name=str(os.getpid()), started=mine).exists()
    assert Resource(kind=ResourceKind.PROCESS, name=str(os.getppid()), started=parents).exists()
    assert not Resource(kind=ResourceKind.PROCESS, name=str(os.getppid()), started=parents - 1).exists()


def test_a_process_that_survives_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger, "KILL_TIMEOUT_SECONDS", 0.05)
    with subprocess.Popen(["sleep", "600"]) as process:
        monkeypatch.setattr(ledger, "start_time", lambda pid: 7)  # as one in the midst of a system call that hangs
        with pytest.raises(LabError, match="SIGKILL"):
            Resource(kind=ResourceKind.PROCESS, name=str(process.pid), started=7).remove()


def test_a_process_that_is_gone_needs_no_killing() -> None:
    with subprocess.Popen(["true"]) as process:
        process.wait()
    Resource(kind=ResourceKind.PROCESS, name=str(process.pid), started=7).remove()


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (ResourceKind.SCOPE, "sshd.service"),
        (ResourceKind.TRACE, "lab-otherone"),
        (ResourceKind.FILE, "/etc/passwd"),
        (ResourceKind.DIRECTORY, "/etc/../var/tmp/x"),
        (ResourceKind.FILE, "var/tmp/lab/x"),
    ],
)
def test_what_a_session_can_not_have_made_stays(
    kind: ResourceKind, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Resource, "exists", lambda self: True)
    monkeypatch.setattr(Resource, "remove", lambda self: pytest.fail(f"{self.name} was removed"))
    session = Session.open()
    session.record(Resource(kind=kind, name=name))
    with pytest.raises(LabError) as caught:
        session.close()
    assert name in caught.value.detail


def test_what_a_session_has_made_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The control of the test above: names that differ from those by being the session's."""
    monkeypatch.setattr(Resource, "exists", lambda self: True)
    removed: list[str] = []
    monkeypatch.setattr(Resource, "remove", lambda self: removed.append(self.name))
    session = Session.open()
    scope = delegation.scope_of(session.id)
    made = [
        Resource(kind=ResourceKind.SCOPE, name=scope),
        Resource(kind=ResourceKind.TRACE, name=f"lab-{session.id}"),
        Resource(kind=ResourceKind.FILE, name="/var/tmp/x"),
        Resource(kind=ResourceKind.CGROUP, name=f"lab/{session.id}/web"),
        Resource(kind=ResourceKind.OTHER_CGROUP, name=f"{scope}/{delegation.INSTANCES}/web"),
    ]
    for resource in made:
        session.record(resource)
    session.close()
    assert removed == [resource.name for resource in reversed(made)]


# -- a session's files -----------------------------------------------------------------------------------------


def test_its_files_are_the_owners_alone(tmp_path: Path) -> None:
    former = os.umask(0)
    try:
        with Session.open() as session:
            assert ledger.SESSION.fullmatch(session.id)
            scratch = session.make_directory(tmp_path / "home" / "scratch")
            book = session.directory / ledger.LEDGER
            for path, mode in ((session.directory, 0o700), (scratch, 0o700), (book, 0o600)):
                assert stat.S_IMODE(path.stat().st_mode) == mode, path
    finally:
        os.umask(former)


def test_where_none_can_be_opened_the_remedy_is_told(runtime: Path) -> None:
    runtime.write_text("a file in its place")
    with pytest.raises(LabError) as caught:
        Session.open()
    assert str(runtime) in caught.value.message


def test_somebody_elses_folder_is_not_used(runtime: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is looked at again once it is there: another user may have been faster."""
    asked: list[bool] = []

    def root() -> Path:
        asked.append(runtime.exists())
        if runtime.exists():
            raise LabError("is somebody else's")
        return runtime

    monkeypatch.setattr(ledger, "runtime_root", root)
    with pytest.raises(LabError, match="somebody else"):
        Session.open()
    assert asked == [False, True]


def test_a_closed_one_records_nothing_and_closes_no_more(tmp_path: Path) -> None:
    session = Session.open()
    number = session._descriptor
    session.close()
    with pytest.raises(OSError):
        os.fstat(number)
    with (tmp_path / "other").open("w") as other:  # gets the number that has become free
        session.close()
        other.write("x")
    with pytest.raises(LabError, match=session.id):
        session.record(Resource(kind=ResourceKind.FILE, name=str(tmp_path / "x")))


def test_its_first_descriptor_may_be_0(tmp_path: Path) -> None:
    """As in a process that was started with a closed standard input."""
    session = Session.open()
    kept = session._descriptor
    try:
        session._descriptor = 0
        with pytest.MonkeyPatch.context() as patch:
            written: list[int] = []
            patch.setattr(os, "write", lambda descriptor, line: written.append(descriptor))
            session.record(Resource(kind=ResourceKind.FILE, name=str(tmp_path / "x")))
            closed: list[int] = []
            patch.setattr(os, "close", lambda descriptor: closed.append(descriptor) if descriptor == 0 else None)
            session.close()
        assert written == [0]
        assert closed == [0]
    finally:
        os.close(kept)


def test_when_a_process_started_is_kept_with_it() -> None:
    with subprocess.Popen(["sleep", "600"]) as process:
        with Session.open() as session:
            session.process(process.pid)
            session.record(Resource(kind=ResourceKind.FILE, name="/var/tmp/x"))
            written, file = ledger.resources(session.directory)
            assert written.started == ledger.start_time(process.pid) != 0
            assert file.started == 0
        assert process.wait(60) == -signal.SIGKILL


def test_a_namespace_ends_by_itself_and_is_never_left() -> None:
    assert Resource(kind=ResourceKind.NAMESPACE, name="net:[4026531840]").exists() is False


def test_a_session_is_of_this_boot_or_of_another(tmp_path: Path) -> None:
    with Session.open() as session:
        assert ledger.is_of_this_boot(session.directory) is True
        written = session.directory / ledger.OWNER
        owner = json.loads(written.read_text())
        written.write_text(json.dumps(owner | {"boot_id": "another"}))
        assert ledger.is_of_this_boot(session.directory) is False
        written.write_text(json.dumps(owner))
    assert ledger.is_of_this_boot(tmp_path) is False, "nobody's"


def test_where_no_session_ever_was_none_is_stale() -> None:
    assert ledger.stale_sessions() == []


# -- cleaners --------------------------------------------------------------------------------------------------


def test_a_cleaner_leaves_what_another_is_at(tmp_path: Path) -> None:
    session = Session.open()
    scratch = session.make_directory(tmp_path / "home" / "scratch")
    with dead(session):
        with locked(session.directory):
            assert ledger.clean_session(session.directory) == ([], [])
            assert scratch.is_dir()
        assert ledger.clean_session(session.directory)[0]
        assert not scratch.exists()
        assert ledger.clean_session(session.directory) == ([], [])


def test_an_owner_waits_for_a_cleaner_that_only_looks(tmp_path: Path) -> None:
    session = Session.open()
    scratch = session.make_directory(tmp_path / "home" / "scratch")
    with locked(session.directory) as descriptor:
        timer = threading.Timer(0.2, fcntl.flock, (descriptor, fcntl.LOCK_UN))
        timer.start()
        session.close()
        timer.join()
    assert not scratch.exists()
    assert not session.directory.exists()


def test_who_takes_over_waits_too() -> None:
    session = Session.open()
    session.keep_for(os.getpid())
    with locked(session.directory) as descriptor:
        order: list[str] = []

        def unlock() -> None:
            order.append("unlocked")
            fcntl.flock(descriptor, fcntl.LOCK_UN)

        timer = threading.Timer(0.2, unlock)
        timer.start()
        with Session.take_over(session.directory) as taken:
            assert order == ["unlocked"]
            assert taken.id == session.id
        timer.join()
    os.close(session._descriptor)


def test_one_that_is_kept_is_not_stale_and_its_new_owner_is_written_down() -> None:
    session = Session.open()
    with dead(session):
        assert ledger.stale_sessions() == [session.directory]
        session.keep_for(os.getppid())
        assert ledger.stale_sessions() == []
        with Session.take_over(session.directory) as taken:
            found = json.loads((taken.directory / ledger.OWNER).read_text())
            assert (found["pid"], found["started"]) == (os.getpid(), ledger.start_time(os.getpid()))
    os.close(session._descriptor)


def test_what_would_be_removed_is_told_newest_first(tmp_path: Path) -> None:
    with Session.open() as session:
        first, second = (session.make_directory(tmp_path / "home" / name) for name in ("first", "second"))
        session.record(Resource(kind=ResourceKind.FILE, name=str(tmp_path / "home" / "gone")))
        told = ledger.leftovers(session.directory)
    assert [line.rpartition(" ")[2] for line in told] == [str(second), str(first), str(session.directory)]
    assert all(session.id in line for line in told)


def test_what_can_not_be_removed_is_told_and_the_rest_is_removed(tmp_path: Path) -> None:
    sessions = [Session.open(), Session.open()]
    scratch = sessions[1].make_directory(tmp_path / "home" / "scratch")
    sessions[0].record(Resource(kind=ResourceKind.DIRECTORY, name="/etc"))
    with dead(sessions[0]), dead(sessions[1]), pytest.raises(LabError) as caught:
        ledger.clean_stale()
    assert "/etc" in caught.value.detail
    assert not scratch.exists()
    assert ledger.stale_sessions() == [sessions[0].directory]


def test_a_folder_that_stays_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    session = Session.open()

    def stay(path: Path) -> None:
        raise OSError("busy")

    monkeypatch.setattr(ledger, "remove_tree", stay)
    with pytest.raises(LabError) as caught:
        session.close()
    assert str(session.directory) in caught.value.detail


def test_the_launchers_last_act(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It removes its session, and what else that session's owner had; somebody else's dead session it leaves."""
    sessions = [Session.open() for _ in range(3)]
    scratches = [session.make_directory(tmp_path / "home" / session.id) for session in sessions]
    for session in sessions[:2]:
        with dead(session):
            pass
    with dead(sessions[2]), dead(sessions[2]):
        pass
    interpreter, *_, module, folder = sessions[0].cleaner
    assert (interpreter, module, folder) == (sys.executable, ledger.__name__, str(sessions[0].directory))
    assert ledger.main([folder]) == 0
    assert [scratch.exists() for scratch in scratches] == [False, False, True]
    sessions[2].record(Resource(kind=ResourceKind.FILE, name="/etc/passwd"))
    assert ledger.main([str(sessions[2].directory)]) == 1
    assert "/etc/passwd" in capsys.readouterr().err
