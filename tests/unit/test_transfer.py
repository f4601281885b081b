"""`lab cp` without an instance: Docker's rules for destinations, hostile archives, the helper's tar."""

from __future__ import annotations

import io
import os
import stat
import subprocess
import tarfile
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lab.errors import LabError, UsageError
from lab.inside import build
from lab.supervisor.transfer import ROOT_NAME, Options, merge, place, unpack_hostile

# Where it goes


@pytest.mark.parametrize(
    ("source", "of_directory", "destination", "kind", "directory", "name"),
    [
        ("a/file", False, "/absent", "absent", "/", "absent"),
        ("a/file", False, "/tmp/absent", "absent", "/tmp", "absent"),
        ("a/file", False, "/there", "file", "/", "there"),
        ("a/file", False, "/tmp", "directory", "/tmp", "file"),
        ("a/folder", True, "/absent", "absent", "/", "absent"),
        ("a/folder/", True, "/absent/", "absent", "/", "absent"),
        ("a/folder", True, "/tmp", "directory", "/tmp", "folder"),
        ("a/folder/", True, "/tmp/", "directory", "/tmp/", "folder"),
        ("a/folder/.", True, "/tmp", "directory", "/tmp", "."),
        ("a/folder/.", True, "/absent", "absent", "/", "absent"),
        (".", True, "/tmp", "directory", "/tmp", "."),
        ("/", True, "/tmp", "directory", "/tmp", "."),
        ("a/file", False, "here", "absent", ".", "here"),
    ],
)
def test_docker_s_rules(
    source: str, of_directory: bool, destination: str, kind: str, directory: str, name: str
) -> None:
    placed = place(source, destination, of_directory=of_directory, kind=kind)
    assert (placed.directory, placed.name) == (directory, name)


@pytest.mark.parametrize(
    ("of_directory", "destination", "kind"),
    [(True, "/there", "file"), (False, "/there/", "file"), (False, "/absent/", "absent")],
)
def test_what_the_rules_forbid(of_directory: bool, destination: str, kind: str) -> None:
    with pytest.raises(UsageError):
        place("source", destination, of_directory=of_directory, kind=kind)


# What a hostile instance may send


def archive(*members: tuple[str, dict[str, object]], content: bytes = b"") -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, fields in members:
            member = tarfile.TarInfo(name)
            member.size = len(content) if fields.get("type", tarfile.REGTYPE) == tarfile.REGTYPE else 0
            for field, value in fields.items():
                setattr(member, field, value)
            tar.addfile(member, io.BytesIO(content))
    return file.getvalue()


def unpack(data: bytes, staging: Path, **options: bool) -> list[str]:
    return unpack_hostile(io.BytesIO(data).read, staging, Options(**options))


FOLDER = (ROOT_NAME, {"type": tarfile.DIRTYPE, "mode": 0o755})


@pytest.mark.parametrize(
    "members",
    [
        [("elsewhere", {})],
        [("/etc/cron.d/evil", {})],
        [FOLDER, (f"{ROOT_NAME}/../../evil", {})],
        [FOLDER, (f"{ROOT_NAME}/link", {"type": tarfile.SYMTYPE, "linkname": "OUT"}), (f"{ROOT_NAME}/link/evil", {})],
        [(ROOT_NAME, {"type": tarfile.SYMTYPE, "linkname": "OUT"}), (f"{ROOT_NAME}/evil", {})],
        [FOLDER, (f"{ROOT_NAME}/hard", {"type": tarfile.LNKTYPE, "linkname": "../../secret"})],
        [FOLDER, (f"{ROOT_NAME}/hard", {"type": tarfile.LNKTYPE, "linkname": "OUT/secret"})],
    ],
)
def test_nothing_leads_out(tmp_path: Path, members: list[tuple[str, dict[str, object]]]) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "secret").write_text("secret")
    before = sorted(tmp_path.rglob("*"))
    for _, fields in members:
        if "linkname" in fields:
            fields["linkname"] = str(fields["linkname"]).replace("OUT", str(out))
    place = tmp_path / "place"
    place.mkdir()
    with pytest.raises(LabError):
        unpack(archive(*members, content=b"evil"), place / "staging")
    assert sorted(path for path in tmp_path.rglob("*") if place not in (path, *path.parents)) == before
    assert (out / "secret").stat().st_nlink == 1


def test_no_device_no_set_user_id_no_attribute(tmp_path: Path) -> None:
    capability = {"SCHILY.xattr.security.capability": "x" * 20}
    data = archive(
        FOLDER,
        (f"{ROOT_NAME}/disk", {"type": tarfile.BLKTYPE, "devmajor": 8, "devminor": 0}),
        (f"{ROOT_NAME}/root", {"mode": 0o6755, "uid": 0, "pax_headers": capability}),
        content=b"program",
    )
    assert unpack(data, tmp_path / "staging") == [f"{ROOT_NAME}/disk"]
    made = tmp_path / "staging" / ROOT_NAME / "root"
    assert stat.S_IMODE(made.stat().st_mode) == 0o755
    assert made.stat().st_uid == os.geteuid()
    assert os.listxattr(made) == []


def test_merging_joins_folders_and_replaces_files(tmp_path: Path) -> None:
    for path, text in (
        ("new/both/a", "new"),
        ("new/both/b", "new"),
        ("there/both/b", "old"),
        ("there/both/c", "old"),
    ):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    merge(tmp_path / "new", tmp_path / "there")
    found = {path.name: path.read_text() for path in (tmp_path / "there/both").iterdir()}
    assert found == {"a": "new", "b": "new", "c": "old"}


def test_merging_never_follows_a_link(tmp_path: Path) -> None:
    (tmp_path / "new/folder").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "there").mkdir()
    (tmp_path / "there/folder").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UsageError, match="is no folder"):
        merge(tmp_path / "new", tmp_path / "there")


# The helper's own tar


def inside(*words: str | Path, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([build.program(), *words], input=stdin, capture_output=True, timeout=60, check=False)


def mixed(folder: Path) -> None:
    """What a folder may hold: long names, links of both kinds, modes, an old time."""
    deep = folder / ("d" * 120) / ("e" * 120)
    deep.mkdir(parents=True)
    (deep / ("f" * 200)).write_bytes(os.urandom(100_000))
    (folder / "empty").write_bytes(b"")
    (folder / "old").write_text("old")
    os.utime(folder / "old", (1, 1))
    (folder / "old").chmod(0o640)
    (folder / "link").symlink_to("y" * 150)
    os.link(folder / "old", folder / "second")
    os.mkfifo(folder / "fifo", 0o600)
    (folder / "closed").mkdir(mode=0o555)
    (folder / "ümläut\n").write_text("name")


def described(folder: Path) -> dict[str, tuple[object, ...]]:
    found = {}
    for path in folder.rglob("*"):
        status = path.lstat()
        content = path.readlink() if path.is_symlink() else path.read_bytes() if path.is_file() else b""
        times = 0 if path.is_symlink() else int(status.st_mtime)  # Python leaves those of links
        found[str(path.relative_to(folder))] = (oct(status.st_mode), status.st_nlink, times, content)
    return found


def test_what_it_packs_everyone_can_read_and_it_can_unpack(tmp_path: Path) -> None:
    mixed(tmp_path / "folder")
    packed = inside("pack", tmp_path / "folder", "called")
    assert (packed.returncode, packed.stderr, len(packed.stdout) % 512) == (0, b"", 0)
    with tarfile.open(fileobj=io.BytesIO(packed.stdout)) as tar:
        tar.extractall(tmp_path / "by-python")
    (tmp_path / "by-itself").mkdir()
    done = inside("unpack", "--owner", f"{os.getuid()}:{os.getgid()}", tmp_path / "by-itself", stdin=packed.stdout)
    assert (done.returncode, done.stderr) == (0, b"")
    wanted = described(tmp_path / "folder")
    assert described(tmp_path / "by-python/called") == wanted
    assert described(tmp_path / "by-itself/called") == wanted


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_it_unpacks_what_python_packs(tmp_path: Path, form: int) -> None:
    mixed(tmp_path / "folder")
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=form) as tar:
        tar.add(tmp_path / "folder", "called")
    (tmp_path / "out").mkdir()
    words = ("unpack", "--owner", f"{os.getuid()}:{os.getgid()}", tmp_path / "out")
    for _ in range(2):  # once more is as good as once
        done = inside(*words, stdin=file.getvalue())
        assert (done.returncode, done.stderr) == (0, b"")
    assert described(tmp_path / "out/called") == described(tmp_path / "folder")


@settings(deadline=None, max_examples=50)  # each starts a process
@given(st.binary(max_size=2000), st.integers(0, 4))
def test_it_survives_nonsense(data: bytes, headers: int) -> None:
    """No crash, no way out of the folder, whatever comes."""
    good = archive(*[(f"file{number}", {}) for number in range(headers)], content=b"x")[: 1024 * headers]
    with tempfile.TemporaryDirectory() as folder:
        done = inside("unpack", "--owner", f"{os.getuid()}:{os.getgid()}", folder, stdin=good + data)
    assert done.returncode in (0, 1)


@pytest.mark.parametrize("name", ["../evil", "/evil", "a/../../evil"])
def test_it_refuses_a_name_that_climbs(tmp_path: Path, name: str) -> None:
    (tmp_path / "in").mkdir()
    done = inside("unpack", tmp_path / "in", stdin=archive((name, {}), content=b"evil"))
    assert done.returncode == 1
    assert b"leads out" in done.stderr
    assert not list(tmp_path.rglob("evil"))
