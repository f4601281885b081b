"""``lab cp`` both ways, as a user does it: files, folders, links, modes, owners, archives."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import seated
from host_state import assert_unchanged, snapshot
from tiny import tiny_image

from lab.images.store import Store


@pytest.fixture(scope="module", params=["process", "container"])
def name(request: pytest.FixtureRequest, lab_home: Path) -> Iterator[str]:
    image = tiny_image(Store.open(lab_home)).name
    before = snapshot()
    name = f"copied-{request.param}"
    started = seated.lab("run", "-d", "--name", name, "--on", request.param, image, "--", "sleep", "600")
    assert started.returncode == 0, started.stderr
    yield name
    assert seated.lab("rm", "-f", name).returncode == 0
    assert_unchanged(before)


def copy(*words: str | Path) -> None:
    done = seated.lab("cp", *map(str, words))
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def shown(name: str, script: str) -> str:
    done = seated.lab("exec", name, "sh", "-c", script)
    assert done.returncode == 0, done.stderr
    return done.stdout.decode()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "folder"
    (folder / "below").mkdir(parents=True)
    (folder / "below/file").write_bytes(os.urandom(1 << 20))
    (folder / "below/file").chmod(0o751)
    os.chown(folder / "below/file", 1234, 5678)
    (folder / "link").symlink_to("/etc/passwd")
    return folder


def test_there_and_back(name: str, folder: Path, tmp_path: Path) -> None:
    copy(folder, f"{name}:/tmp")
    assert shown(name, "cd /tmp/folder; stat -c '%n %a %u:%g' below/file; readlink link; echo there >below/new") == (
        "below/file 751 0:0\n/etc/passwd\n"
    )
    copy(f"{name}:/tmp/folder", tmp_path / "back")
    assert (tmp_path / "back/below/file").read_bytes() == (folder / "below/file").read_bytes()
    assert (tmp_path / "back/below/new").read_text() == "there\n"
    assert (tmp_path / "back/link").readlink() == Path("/etc/passwd")
    copy(f"{name}:/tmp/folder/.", tmp_path / "back")
    copy(f"{name}:/tmp/folder", tmp_path / "back")
    assert (tmp_path / "back/folder/below/new").exists()


def test_owners_are_kept_where_that_is_wanted(name: str, folder: Path, tmp_path: Path) -> None:
    copy("-a", folder, f"{name}:/srv/kept")
    assert shown(name, "stat -c '%a %u:%g' /srv/kept/below/file") == "751 1234:5678\n"
    copy("-a", f"{name}:/srv/kept/below/file", tmp_path)
    copy(f"{name}:/srv/kept/below/file", tmp_path / "mine")
    owners = [(path.stat().st_uid, path.stat().st_gid) for path in (tmp_path / "file", tmp_path / "mine")]
    assert owners == [(1234, 5678), (os.geteuid(), os.getegid())]


def test_links_are_followed_only_where_that_is_wanted(name: str, tmp_path: Path) -> None:
    shown(name, "ln -sf /srv/index.html /tmp/page")
    copy(f"{name}:/tmp/page", tmp_path / "link")
    copy("-L", f"{name}:/tmp/page", tmp_path / "page")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "page").read_text() == shown(name, "cat /srv/index.html")


def test_archives_in_and_out(name: str, folder: Path) -> None:
    packed = subprocess.run(["tar", "-C", folder, "-c", "."], capture_output=True, check=True).stdout
    done = seated.lab("cp", "-", f"{name}:/run", stdin=packed)
    assert (done.returncode, done.stderr) == (0, b"")
    assert shown(name, "stat -c '%a %u:%g' /run/below/file") == "751 1234:5678\n"
    done = seated.lab("cp", f"{name}:/run/below", "-")
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as tar:
        assert sorted(tar.getnames()) == ["below", "below/file"]


@pytest.mark.parametrize(
    ("source", "destination", "message"),
    [
        ("NAME:/absent", ".", "/absent: No such file"),
        ("NAME:/etc", "/dev/null", "is no folder"),
        ("NAME:/etc", "/absent/absent", "there is no folder /absent"),
        ("absent", "NAME:/", "absent: No such file"),
        ("/etc", "NAME:/etc/passwd", "is no folder"),
        ("/etc/passwd", "NAME:/absent/", "there is no folder /absent/"),
        ("/etc/passwd", "NAME:/absent/absent", "/absent: No such file"),
        ("-", "NAME:/etc/passwd", "is no folder"),
        ("here", "there", "one of the two"),
        ("nobody:/etc", ".", "no instance is called nobody"),
    ],
)
def test_one_clear_line(name: str, source: str, destination: str, message: str) -> None:
    done = seated.lab("cp", source.replace("NAME", name), destination.replace("NAME", name))
    assert done.returncode in (1, 2)
    assert message in done.stderr.decode()
    assert b"Traceback" not in done.stderr


def test_an_instance_that_has_ended(lab_home: Path) -> None:
    image = tiny_image(Store.open(lab_home)).name
    assert seated.lab("run", "-d", "--name", "ended", image, "--", "true").returncode == 0
    try:
        assert seated.lab("wait", "ended").returncode == 0
        done = seated.lab("cp", "ended:/etc", ".")
        assert done.returncode == 2
        assert b"does not run" in done.stderr
    finally:
        seated.lab("rm", "ended")
