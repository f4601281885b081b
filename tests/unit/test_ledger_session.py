"""Sessions and their ledgers: nothing outlives its owner, and nothing else is touched."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import hypothesis
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.errors import LabError
from lab.host import trees
from lab.host.cgroup.hierarchy import Hierarchies
from lab.host.kernel import settings
from lab.host.session import ledger, orphans
from lab.host.session.ledger import Resource, ResourceKind, Session

OWNER_THAT_DIES = """
import sys
from pathlib import Path
from lab.host.session import ledger
ledger.runtime_root = lambda: Path(sys.argv[1])
session = ledger.Session.open()
scratch = session.make_directory(Path(sys.argv[2]))
(scratch / "file").write_text("left")
print(session.id, flush=True)
if sys.argv[3] == "live":
    sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tmp_path / "run"
    monkeypatch.setattr(ledger, "runtime_root", lambda: root)
    return root


def other_process(runtime: Path, scratch: Path, fate: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", OWNER_THAT_DIES, str(runtime), str(scratch), fate],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip


def test_closing_removes_everything_newest_first(
    tmp_path: Path, runtime: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order = []
    remove = Resource.remove
    monkeypatch.setattr(Resource, "remove", lambda self: (order.append(self.name), remove(self)))
    with Session.open() as session:
        outer = session.make_directory(tmp_path / "home" / "outer")
        inner = session.make_directory(outer / "inner")
        (inner / "file").write_text("x")
    assert order == [str(inner), str(outer)]
    assert not outer.exists()
    assert list(runtime.iterdir()) == []


def test_a_resource_is_written_before_it_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Session.open() as session:
        target = tmp_path / "home" / "scratch"

        def refuse(*_: object, **__: object) -> None:
            raise OSError("no space")

        with monkeypatch.context() as patch:
            patch.setattr(Path, "mkdir", refuse)
            with pytest.raises(OSError):
                session.make_directory(target)
        assert [one.name for one in ledger.resources(session.directory)] == [str(target)]


def test_the_owner_lives_so_nothing_is_stale(tmp_path: Path) -> None:
    with Session.open() as session:
        kept = session.make_directory(tmp_path / "home" / "scratch")
        assert ledger.stale_sessions() == []
        assert ledger.clean_stale() == []
        assert ledger.clean_session(session.directory) == ([], [])
        assert kept.is_dir()


def test_what_a_dead_owner_left_is_removed_and_named(tmp_path: Path, runtime: Path) -> None:
    scratch = tmp_path / "home" / "scratch"
    with other_process(runtime, scratch, "die") as process:
        name = process.communicate()[0].strip()
    assert (scratch / "file").exists()
    assert [folder.name for folder in ledger.stale_sessions()] == [name]
    assert ledger.clean_stale() == [f"session {name}: directory {scratch}"]
    assert not scratch.exists()
    assert list(runtime.iterdir()) == []


def test_those_that_end_while_all_are_looked_at_hide_no_dead_one(tmp_path: Path, runtime: Path) -> None:
    """A link that leads nowhere is there when a folder is listed, and not when it is looked at."""
    with other_process(runtime, tmp_path / "home" / "scratch", "die") as process:
        name = process.communicate()[0].strip()
    for number in range(3):
        (runtime / f"0000000{number}").symlink_to(runtime / "gone")
    assert ledger.stale_sessions() == [runtime / name]


def test_a_group_that_goes_while_orphans_are_looked_for_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(orphans, "YOUNG_SECONDS", -1.0)
    (tmp_path / "lab" / "01234567").mkdir(parents=True)
    (tmp_path / "lab" / "89abcdef").symlink_to(tmp_path / "gone")
    (found,) = orphans.orphan_groups(Hierarchies(unified=tmp_path), sessions=tmp_path / "sessions")
    assert found.path.name == "01234567"


def test_a_group_of_another_user_s_is_none_either(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(orphans, "YOUNG_SECONDS", -1.0)
    (tmp_path / "lab" / "01234567").mkdir(parents=True)
    monkeypatch.setattr(orphans, "user_id", lambda: os.geteuid() + 1)
    assert orphans.orphan_groups(Hierarchies(unified=tmp_path), sessions=tmp_path / "sessions") == []


def test_only_the_dead_owners_things_are_removed(tmp_path: Path, runtime: Path) -> None:
    living, dead = tmp_path / "home" / "living", tmp_path / "home" / "dead"
    with other_process(runtime, living, "live") as survivor, other_process(runtime, dead, "die") as victim:
        victim.communicate()
        assert survivor.stdout
        survivor.stdout.readline()
        ledger.clean_stale()
        assert (living / "file").exists()
        assert not dead.exists()
        survivor.communicate()


def test_a_recycled_pid_does_not_keep_a_session_alive(runtime: Path) -> None:
    session = Session.open()
    fields = json.loads((session.directory / ledger.OWNER).read_text())
    (session.directory / ledger.OWNER).write_text(json.dumps({**fields, "started": fields["started"] - 1}))
    assert ledger.stale_sessions() == [session.directory]


def test_after_a_reboot_only_files_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    session = Session.open()
    scratch = session.make_directory(tmp_path / "home" / "scratch")
    session.process(os.getppid())
    session.record(Resource(kind=ResourceKind.CGROUP, name=f"lab/{session.id}/web-1"))
    monkeypatch.setattr(ledger, "boot_id", lambda: "another boot")
    monkeypatch.setattr(ledger, "_kill", lambda *_: pytest.fail("a process of another boot was killed"))
    monkeypatch.setattr(ledger.ControlGroup, "open", lambda *_: pytest.fail("a cgroup of another boot was removed"))
    assert ledger.clean_stale() == [f"session {session.id}: directory {scratch}"]


def test_a_recorded_process_is_killed_and_its_successor_is_not() -> None:
    with subprocess.Popen(["sleep", "600"]) as process:
        started = ledger.start_time(process.pid)
        assert started
        Resource(kind=ResourceKind.PROCESS, name=str(process.pid), started=started - 1).remove()
        assert process.poll() is None
        with Session.open() as session:
            session.process(process.pid)
        assert process.wait(60) == -9


def test_two_cleaners_share_the_work(tmp_path: Path, runtime: Path) -> None:
    for number in range(8):
        with other_process(runtime, tmp_path / "home" / str(number), "die") as process:
            process.communicate()
    start = threading.Barrier(4)
    removed: list[str] = []

    def clean() -> None:
        start.wait()
        removed.extend(ledger.clean_stale())

    cleaners = [threading.Thread(target=clean) for _ in range(4)]
    for cleaner in cleaners:
        cleaner.start()
    for cleaner in cleaners:
        cleaner.join()
    assert len(removed) == len(set(removed)) == 8
    assert list(runtime.iterdir()) == []


@pytest.mark.parametrize(
    "line",
    [
        {"kind": "directory", "name": "/usr/../etc/nothing/here"},
        {"kind": "directory", "name": "/etc"},
        {"kind": "file", "name": "relative/path"},
        {"kind": "cgroup", "name": "lab/otherone/web-1"},
        {"kind": "cgroup", "name": "system.slice/x"},
        {"kind": "cgroup", "name": "lab"},
        {"kind": "other-cgroup", "name": "lab"},
    ],
)
def test_a_ledger_cannot_name_what_lab_never_makes(line: dict[str, str]) -> None:
    session = Session.open()
    session.record(Resource(kind=ResourceKind(line["kind"]), name=line["name"]))
    with pytest.raises(LabError, match="left something behind") as caught:
        session.close()
    assert line["name"] in caught.value.detail
    assert session.directory.is_dir(), "the ledger stays while something is left"


def test_one_failure_does_not_keep_the_rest(tmp_path: Path) -> None:
    session = Session.open()
    first = session.make_directory(tmp_path / "home" / "first")
    session.record(Resource(kind=ResourceKind.DIRECTORY, name="/etc"))
    last = session.make_directory(tmp_path / "home" / "last")
    with pytest.raises(LabError):
        session.close()
    assert not first.exists()
    assert not last.exists()


def test_what_another_cleaner_removes_meanwhile_keeps_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The launcher removes its part of a dead session's scratch space while ``lab clean`` removes the whole."""
    for name in ("first", "second"):
        (tmp_path / "scratch" / name).mkdir(parents=True)
        (tmp_path / "scratch" / name / "file").touch()
    unlink = os.unlink

    def too_late(*path: str, **options: int) -> None:
        unlink(*path, **options)
        unlink(*path, **options)

    monkeypatch.setattr(os, "unlink", too_late)
    Resource(kind=ResourceKind.DIRECTORY, name=str(tmp_path / "scratch")).remove()
    assert not (tmp_path / "scratch").exists()


def test_a_symbolic_link_is_never_followed(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "file").write_text("keep")
    session = Session.open()
    session.record(Resource(kind=ResourceKind.DIRECTORY, name=str(tmp_path / "home" / "link")))
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "link").symlink_to(precious)
    with pytest.raises(LabError):
        session.close()
    assert (precious / "file").read_text() == "keep"


def test_what_is_mounted_is_never_entered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trees, "_mounts_at_or_below", lambda path: [f"{path}/merged"])
    session = Session.open()
    scratch = session.make_directory(tmp_path / "home" / "scratch")
    with pytest.raises(LabError) as caught:
        session.close()
    assert "merged is mounted in it" in caught.value.detail
    assert scratch.is_dir()


def test_mount_points_with_blanks_are_recognised(monkeypatch: pytest.MonkeyPatch) -> None:
    table = "22 1 0:21 / /srv/a\\040b/c rw - tmpfs t rw\n23 1 0:21 / /srv/a\\040bc rw - tmpfs t rw\n"
    monkeypatch.setattr(Path, "read_text", lambda self: table)
    assert trees._mounts_at_or_below("/srv/a b") == ["/srv/a\\040b/c"]


def test_a_session_half_born_is_removed_once_its_maker_is_dead(runtime: Path) -> None:
    with subprocess.Popen(["true"]) as process:
        process.wait()
    (runtime / f"{ledger.UNBORN}0a0b0c0d.{process.pid}").mkdir(parents=True)
    (runtime / f"{ledger.UNBORN}0a0b0c0e.{os.getpid()}").mkdir()
    ledger.clean_stale()
    assert [folder.name for folder in runtime.iterdir()] == [f"{ledger.UNBORN}0a0b0c0e.{os.getpid()}"]


def test_a_folder_that_something_wrote_again_after_its_removal_goes_too(runtime: Path) -> None:
    (runtime / "0a0b0c0d" / "libvirt").mkdir(parents=True)
    ledger.clean_stale()
    assert list(runtime.iterdir()) == []


def test_a_stranger_in_the_runtime_root_is_left_alone(runtime: Path) -> None:
    (runtime / "somebody").mkdir(parents=True)
    (runtime / "note").write_text("x")
    assert ledger.clean_stale() == []
    assert {path.name for path in runtime.iterdir()} == {"somebody", "note"}


def test_a_forked_child_that_exits_closes_nothing(tmp_path: Path) -> None:
    with Session.open() as session:
        scratch = session.make_directory(tmp_path / "home" / "scratch")
        if (child := os.fork()) == 0:
            session.close()
            os._exit(0)
        os.waitpid(child, 0)
        assert scratch.is_dir()


@hypothesis.settings(deadline=None)
@given(st.binary(max_size=200))
def test_a_ledger_of_any_bytes_can_be_read(text: bytes) -> None:
    """A killed process may leave a line cut short; the disk may leave worse."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / ledger.LEDGER).write_bytes(b'{"kind": "file", "name": "/run/lab/x/socket"}\n' + text)
        assert ledger.resources(Path(folder))[0].name == "/run/lab/x/socket"


def test_a_session_is_kept_by_its_instance_and_taken_over(tmp_path: Path, runtime: Path) -> None:
    """Its owner died, its instance lives: no leftover. Then another process owns it, and removes it in the end."""
    scratch = tmp_path / "scratch" / "of" / "it"
    with other_process(runtime, scratch, "live") as owner:
        assert owner.stdout
        folder = runtime / owner.stdout.readline().strip()
        with pytest.raises(LabError, match="can't be taken over"):
            Session.take_over(folder)
        owner.kill()
    keeper = {"pid": os.getpid(), "started": ledger.start_time(os.getpid())}
    (folder / ledger.KEEPER).write_text(json.dumps(keeper))
    assert ledger.stale_sessions() == ledger.clean_stale() == []
    with Session.take_over(folder) as session:
        assert session.owner.lives()
        more = session.make_directory(tmp_path / "scratch" / "more")
    assert not scratch.exists()
    assert not more.exists()
    assert not folder.exists()


@pytest.mark.parametrize("change", [{"started": 1}, {"pid": 0}, {"pid": "x"}])
def test_a_session_whose_instance_has_ended_is_stale(
    tmp_path: Path, runtime: Path, change: dict[str, object]
) -> None:
    with other_process(runtime, tmp_path / "scratch" / "of" / "it", "die") as owner:
        assert owner.stdout
        folder = runtime / owner.stdout.readline().strip()
    keeper = {"pid": os.getpid(), "started": ledger.start_time(os.getpid()), **change}
    (folder / ledger.KEEPER).write_text(json.dumps(keeper))
    assert ledger.stale_sessions() == [folder]
    with pytest.raises(LabError, match="can't be taken over"):
        Session.take_over(folder)
    assert ledger.clean_stale()


def test_settings_are_written_back_once_and_only_those_of_lab(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settings, "CHANGEABLE", (f"{tmp_path}/sys/",))
    setting = tmp_path / "sys" / "run"
    setting.parent.mkdir()
    setting.write_text("1")
    session = Session.open()
    file = session.directory / "ksm.settings"
    session.record(Resource(kind=ResourceKind.SETTINGS, name=str(file)))
    settings.save(file, [(str(setting), "2"), (str(setting), "0")])
    settings.put_back(file)
    assert setting.read_text() == "0"
    setting.write_text("somebody's")
    session.close()
    assert setting.read_text() == "somebody's", "what has been put back is lab's no more"


def test_settings_of_a_dead_session_are_written_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "CHANGEABLE", (f"{tmp_path}/sys/",))
    setting = tmp_path / "sys" / "run"
    setting.parent.mkdir()
    setting.write_text("1")
    session = Session.open()
    file = session.directory / "ksm.settings"
    session.record(Resource(kind=ResourceKind.SETTINGS, name=str(file)))
    settings.save(file, [(str(setting), "0")])
    session.close()
    assert setting.read_text() == "0"


@pytest.mark.parametrize("where", ["/proc/sys/kernel/core_pattern", "/sys/kernel/mm/ksm/../../../power/state"])
def test_no_other_settings_are_written(where: str) -> None:
    session = Session.open()
    file = session.directory / "ksm.settings"
    session.record(Resource(kind=ResourceKind.SETTINGS, name=str(file)))
    settings.save(file, [(where, "x")])
    with pytest.raises(LabError) as caught:
        session.close()
    assert "is no setting that lab changes" in caught.value.detail


def test_a_file_of_settings_from_elsewhere_is_not_obeyed(tmp_path: Path) -> None:
    session = Session.open()
    session.record(Resource(kind=ResourceKind.SETTINGS, name=str(tmp_path / "ksm.settings")))
    settings.save(tmp_path / "ksm.settings", [])
    with pytest.raises(LabError) as caught:
        session.close()
    assert "not a file of this session" in caught.value.detail
