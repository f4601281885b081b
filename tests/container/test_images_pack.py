"""What stands in a packed layer, member by member, and what its record says of it."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import socket
import stat
import tarfile
from pathlib import Path

import pytest
import zstandard

from lab.errors import ImageError
from lab.images.layers import DEFAULT_EPOCH, TAR_ZSTD, Layer, compress, epoch, pack
from lab.images.tar.bounds import Bounds
from lab.images.tree import OPAQUE


def sha256(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def plain(blob: Path) -> bytes:
    with blob.open("rb") as file:
        return zstandard.ZstdDecompressor().stream_reader(file).read()


def members(blob: Path) -> dict[str, tarfile.TarInfo]:
    """By name, in their order."""
    with tarfile.open(fileobj=io.BytesIO(plain(blob))) as archive:
        return {info.name: info for info in archive}


@pytest.fixture
def upper(tmp_path: Path) -> Path:
    folder = tmp_path / "upper"
    folder.mkdir(mode=0o755)
    return folder


def test_a_record_names_the_blob_and_its_content(upper: Path, tmp_path: Path) -> None:
    (upper / "file").write_bytes(os.urandom(3_000_000))  # more than is read at once
    blob = tmp_path / "blob"
    found = pack(upper, blob)
    data = blob.read_bytes()
    assert found == Layer(diff_id=sha256(plain(blob)), digest=sha256(data), size_bytes=len(data), media_type=TAR_ZSTD)


@pytest.mark.parametrize("is_packed", [False, True])
def test_another_archive_keeps_its_content(is_packed: bool, tmp_path: Path) -> None:
    source = os.urandom(3_000_000)
    blob = tmp_path / "blob"
    found = compress(io.BytesIO(gzip.compress(source, 1) if is_packed else source), blob, Bounds())
    assert plain(blob) == source
    data = blob.read_bytes()
    assert found == Layer(diff_id=sha256(source), digest=sha256(data), size_bytes=len(data), media_type=TAR_ZSTD)


def test_members_are_in_the_order_of_their_bytes_folder_by_folder(upper: Path, tmp_path: Path) -> None:
    for name in ("b/z", "b/a/inner", "c/x", "a-", "é"):
        (upper / name).parent.mkdir(parents=True, exist_ok=True)
        (upper / name).touch()
    pack(upper, tmp_path / "blob")
    assert list(members(tmp_path / "blob")) == [".", "a-", "b", "c", "é", "b/a", "b/z", "b/a/inner", "c/x"]


def test_what_each_instance_gets_from_its_backend_is_left_out(upper: Path, tmp_path: Path) -> None:
    """But for the empty places that something is mounted on, which are folders."""
    for name in ("proc/1/x", "dev/shm", "home/proc/y"):
        (upper / name).mkdir(parents=True)
    (upper / "sys").write_text("no folder")
    (upper / "tool").touch()
    pack(upper, tmp_path / "blob")
    assert set(members(tmp_path / "blob")) == {".", "proc", "dev", "home", "home/proc", "home/proc/y", "tool"}


def test_deletions_become_files_with_names(upper: Path, tmp_path: Path) -> None:
    (upper / "d").mkdir()
    os.mknod(upper / "d" / "gone", stat.S_IFCHR, 0)
    os.setxattr(upper / "d", OPAQUE, b"y")
    pack(upper, tmp_path / "blob")
    found = members(tmp_path / "blob")
    assert list(found) == [".", "d", "d/.wh..wh..opq", "d/.wh.gone"]
    for name in ("d/.wh..wh..opq", "d/.wh.gone"):
        assert found[name].isreg()
        assert found[name].size == 0
        assert found[name].mtime == DEFAULT_EPOCH
    assert found["d"].pax_headers == {}


def test_a_name_that_would_be_a_deletion_is_refused(upper: Path, tmp_path: Path) -> None:
    (upper / "d").mkdir()
    (upper / "d" / ".wh.kept").touch()
    with pytest.raises(ImageError) as caught:
        pack(upper, tmp_path / "blob")
    assert "d/.wh.kept" in caught.value.message


def test_a_socket_is_left_out(upper: Path, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(upper / "socket"))
    (upper / "zero").touch()
    pack(upper, tmp_path / "blob")
    assert list(members(tmp_path / "blob")) == [".", "zero"]


def test_owners_modes_and_devices(upper: Path, tmp_path: Path) -> None:
    (upper / "tool").write_text("x")
    os.chown(upper / "tool", 7, 8)
    (upper / "tool").chmod(0o4751)
    os.mknod(upper / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.mknod(upper / "loop", stat.S_IFBLK | 0o660, os.makedev(7, 9))
    (upper / "link").symlink_to("/else/where")
    pack(upper, tmp_path / "blob")
    found = members(tmp_path / "blob")
    assert (found["tool"].uid, found["tool"].gid, found["tool"].mode, found["tool"].size) == (7, 8, 0o4751, 1)
    assert (found["null"].devmajor, found["null"].devminor, found["null"].ischr()) == (1, 3, True)
    assert (found["loop"].devmajor, found["loop"].devminor, found["loop"].isblk()) == (7, 9, True)
    assert found["link"].linkname == "/else/where"
    assert found["link"].issym()


def test_a_file_of_several_names_is_packed_once(upper: Path, tmp_path: Path) -> None:
    (upper / "first").write_text("content")
    (upper / "second").hardlink_to(upper / "first")
    (tmp_path / "outside").hardlink_to(upper / "first")
    (upper / "other").write_text("one name here")
    (tmp_path / "elsewhere").hardlink_to(upper / "other")
    pack(upper, tmp_path / "blob")
    found = members(tmp_path / "blob")
    assert (found["first"].isreg(), found["first"].size) == (True, 7)
    assert (found["second"].islnk(), found["second"].linkname, found["second"].size) == (True, "first", 0)
    assert (found["other"].isreg(), found["other"].size) == (True, 13)


def test_attributes_are_kept_as_bytes(upper: Path, tmp_path: Path) -> None:
    (upper / "file").touch()
    (upper / "link").symlink_to("file")
    os.setxattr(upper / "file", "user.lab", b"\xff\x00v")
    os.setxattr(upper / "file", "trusted.overlay.origin", b"of this host")
    pack(upper, tmp_path / "blob")
    headers = members(tmp_path / "blob")["file"].pax_headers
    attributes = {name: value for name, value in headers.items() if name.startswith("SCHILY")}
    assert attributes == {"SCHILY.xattr.user.lab": b"\xff\x00v".decode("utf-8", "surrogateescape")}
    assert members(tmp_path / "blob")["link"].pax_headers == {}, "they are the file's"


def test_a_file_system_without_attributes_has_none(
    upper: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> list[str]:
        raise OSError("Operation not supported")

    monkeypatch.setattr(os, "listxattr", refuse)
    (upper / "file").touch()
    pack(upper, tmp_path / "blob")
    assert members(tmp_path / "blob")["file"].pax_headers == {}


@pytest.mark.parametrize(("since", "kept"), [(1000.0, False), (1000.5, True), (None, False)])
def test_what_is_as_old_as_the_build_is_fresh(upper: Path, tmp_path: Path, since: float | None, kept: bool) -> None:
    (upper / "file").touch()
    os.utime(upper / "file", (5, 1000))
    pack(upper, tmp_path / "blob", fresh_since=since)
    assert members(tmp_path / "blob")["file"].mtime == (1000 if kept else DEFAULT_EPOCH)


@pytest.mark.parametrize(("text", "seconds"), [("1234", 1234), ("", DEFAULT_EPOCH), ("yesterday", DEFAULT_EPOCH)])
def test_the_time_of_all_that_is_made(text: str, seconds: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", text)
    assert epoch().timestamp() == seconds
    assert epoch().utcoffset().total_seconds() == 0  # type: ignore[union-attr]
