"""Layers there and back, and archives that mean harm."""

from __future__ import annotations

import io
import os
import stat
import tarfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lab.errors import ImageError
from lab.images.layers import pack, unpack
from lab.images.manifest import Manifest, write_manifest
from lab.images.tar.extract import unpack_archive
from lab.images.tree import OPAQUE, Tree

CAPABILITY = bytes.fromhex("0100000200040000000000000000000000000000")


@pytest.fixture
def upper(tmp_path: Path) -> Path:
    """An overlayfs upper directory with one of everything."""
    upper = tmp_path / "upper"
    (upper / "bin").mkdir(parents=True)
    (upper / "bin" / "tool").write_bytes(b"\x7fELF")
    os.chown(upper / "bin" / "tool", 7, 8)
    (upper / "bin" / "tool").chmod(0o4755)
    os.setxattr(upper / "bin" / "tool", "security.capability", CAPABILITY)
    os.link(upper / "bin" / "tool", upper / "bin" / "same")
    (upper / "bin" / "link").symlink_to("../../../etc/passwd")
    os.mkfifo(upper / "fifo", 0o600)
    os.mknod(upper / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.mknod(upper / "gone", stat.S_IFCHR, os.makedev(0, 0))
    (upper / "replaced").mkdir(mode=0o1777)
    os.setxattr(upper / "replaced", OPAQUE, b"y")
    (upper / os.fsdecode(b"odd \xff\nname")).write_text("x")
    for mount_point in ("proc", "dev"):
        (upper / mount_point).mkdir()
    (upper / "dev" / "leaked").write_text("x")
    return upper


def test_a_layer_survives_the_way_there_and_back(upper: Path, tmp_path: Path) -> None:
    blob = tmp_path / "blob"
    layer = pack(upper, blob)
    back = tmp_path / "back"
    with blob.open("rb") as reader:
        unpack(reader, back, expected_diff_id=layer.diff_id)
    texts = []
    for root in (upper, back):
        write_manifest(Tree([root]), tmp_path / "manifest")
        texts.append((tmp_path / "manifest").read_text())
    assert texts[0] == texts[1]
    assert r"/odd\x20\xff\x0aname" in texts[1]
    assert os.getxattr(back / "bin" / "tool", "security.capability") == CAPABILITY
    assert (back / "bin" / "tool").stat().st_ino == (back / "bin" / "same").stat().st_ino
    assert (back / "gone").lstat().st_rdev == 0
    assert os.getxattr(back / "replaced", OPAQUE) == b"y"
    assert list((back / "dev").iterdir()) == []


def test_equal_content_makes_an_equal_layer_whatever_the_time(upper: Path, tmp_path: Path) -> None:
    first = pack(upper, tmp_path / "first")
    os.utime(upper / "bin" / "tool", (1, 1))
    assert pack(upper, tmp_path / "second") == first


def test_only_fresh_files_lose_their_time(upper: Path, tmp_path: Path) -> None:
    os.utime(upper / "bin" / "tool", (1_000_000_000, 1_000_000_000))
    layer = pack(upper, tmp_path / "blob", fresh_since=1_500_000_000)
    with (tmp_path / "blob").open("rb") as reader:
        unpack(reader, tmp_path / "back", expected_diff_id=layer.diff_id)
    assert (tmp_path / "back" / "bin" / "tool").stat().st_mtime == 1_000_000_000
    assert (tmp_path / "back" / "null").stat().st_mtime == 1_704_067_200


def test_a_layer_that_is_not_what_the_image_says_is_refused(upper: Path, tmp_path: Path) -> None:
    pack(upper, tmp_path / "blob")
    with (tmp_path / "blob").open("rb") as reader, pytest.raises(ImageError, match="but the image says"):
        unpack(reader, tmp_path / "back", expected_diff_id="sha256:" + "0" * 64)


@pytest.mark.parametrize("mode", ["w:", "w:gz"])
def test_other_compressions_are_told_by_their_content(mode: str, tmp_path: Path) -> None:
    import gzip
    import hashlib

    with tarfile.open(tmp_path / "blob", mode) as archive:  # type: ignore[call-overload]
        archive.addfile(tarfile.TarInfo("file"))
    raw = (tmp_path / "blob").read_bytes()
    plain = gzip.decompress(raw) if mode.endswith("gz") else raw
    with (tmp_path / "blob").open("rb") as reader:
        unpack(reader, tmp_path / "out", expected_diff_id=f"sha256:{hashlib.sha256(plain).hexdigest()}")
    assert (tmp_path / "out" / "file").exists()


def test_a_layer_that_refers_to_the_one_below_is_refused(upper: Path, tmp_path: Path) -> None:
    os.setxattr(upper / "bin", "trusted.overlay.redirect", b"/sbin")
    with pytest.raises(ImageError, match="only a reference") as caught:
        pack(upper, tmp_path / "blob")
    assert "redirect_dir" in caught.value.hint


def test_a_truncated_layer_is_refused(upper: Path, tmp_path: Path) -> None:
    layer = pack(upper, tmp_path / "blob")
    (tmp_path / "cut").write_bytes((tmp_path / "blob").read_bytes()[:-40])
    with (tmp_path / "cut").open("rb") as reader, pytest.raises(ImageError):
        unpack(reader, tmp_path / "back", expected_diff_id=layer.diff_id)


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    info.mode = 0o755
    return info


def extract(members: list[tarfile.TarInfo], target: Path) -> None:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        for info in members:
            info.size = 4 if info.type == tarfile.REGTYPE else 0
            archive.addfile(info, io.BytesIO(b"evil"))
    data.seek(0)
    unpack_archive(data, target, whiteouts=True)


@pytest.mark.parametrize(
    "members",
    [
        [member("../escaped")],
        [member("a/../../escaped")],
        [member("out", tarfile.SYMTYPE, ".."), member("out/escaped")],
        [member("out", tarfile.SYMTYPE, "/"), member("out/escaped")],
        [member("a", tarfile.SYMTYPE, "/etc"), member("a/b/escaped")],
        [member("hard", tarfile.LNKTYPE, "../victim")],
        [member("out", tarfile.SYMTYPE, ".."), member("hard", tarfile.LNKTYPE, "out/victim")],
        [member("out", tarfile.SYMTYPE, ".."), member("out/.wh.victim")],
        [member(".wh...")],
        [member(".wh..")],
        [member("hard", tarfile.LNKTYPE, "")],
    ],
)
def test_no_entry_leads_out_of_the_layer(members: list[tarfile.TarInfo], tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("untouched")
    with pytest.raises(ImageError):
        extract(members, tmp_path / "layer")
    assert victim.read_text() == "untouched"
    assert victim.stat().st_nlink == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["layer", "victim"]


def test_absolute_names_stay_inside(tmp_path: Path) -> None:
    extract([member("/etc/inner"), member("//x")], tmp_path / "layer")
    assert (tmp_path / "layer" / "etc" / "inner").read_text() == "evil"


def test_a_later_entry_replaces_an_earlier_one_without_following_it(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("untouched")
    extract([member("a", tarfile.SYMTYPE, "../victim"), member("a")], tmp_path / "layer")
    assert victim.read_text() == "untouched"
    assert (tmp_path / "layer" / "a").read_text() == "evil"


def test_overlayfs_s_own_attributes_can_t_be_forged(tmp_path: Path) -> None:
    info = member("dir", tarfile.DIRTYPE)
    info.pax_headers = {"SCHILY.xattr.trusted.overlay.redirect": "/etc", "SCHILY.xattr.user.mine": "1"}
    extract([info], tmp_path / "layer")
    assert os.listxattr(tmp_path / "layer" / "dir") == ["user.mine"]


PARTS = st.sampled_from(["a", "b", "..", ".", "/", "", ".wh.a", ".wh..wh..opq"])
KINDS = st.sampled_from([tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE])
MEMBERS = st.builds(
    lambda path, kind, link: member("/".join(path), kind, "/".join(link)),
    st.lists(PARTS, min_size=1, max_size=4), KINDS, st.lists(PARTS, max_size=4),
)  # fmt: skip


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(MEMBERS, max_size=6))
def test_whatever_the_archive_nothing_outside_changes(
    tmp_path_factory: pytest.TempPathFactory, members: list[tarfile.TarInfo]
) -> None:
    outside = tmp_path_factory.mktemp("outside")
    (outside / "a").write_text("untouched")
    (outside / "b").mkdir()
    try:
        extract(members, outside / "layer")
    except ImageError:
        pass
    assert (outside / "a").read_text() == "untouched"
    assert (outside / "a").stat().st_nlink == 1
    assert not any((outside / "b").iterdir())
    assert {path.name for path in outside.iterdir()} <= {"a", "b", "layer"}


def test_the_merged_view_follows_overlayfs(tmp_path: Path) -> None:
    low, middle, top = (tmp_path / name for name in ("low", "middle", "top"))
    for directory, files in ((low, ("d/old", "d/kept", "w/x", "o/hidden", "f")), (middle, ("d/new", "o/shown"))):
        for name in files:
            (directory / name).parent.mkdir(parents=True, exist_ok=True)
            (directory / name).write_text(str(directory.name))
    (top / "d").mkdir(parents=True)
    os.mknod(top / "d" / "old", stat.S_IFCHR, 0)
    os.mknod(middle / "w", stat.S_IFCHR, 0)
    os.setxattr(middle / "o", OPAQUE, b"y")
    (top / "link").symlink_to("../../d/../../d")
    (top / "loop").symlink_to("loop")
    tree = Tree([top, middle, low])
    assert [entry.path for entry in tree.walk()] == [
        b"", b"d", b"d/kept", b"d/new", b"f", b"link", b"loop", b"o", b"o/shown",
    ]  # fmt: skip
    assert tree.read("/link/kept") == b"low"
    assert tree.read("/o/hidden") is None
    assert tree.read("/loop/x") is None
    assert tree.lookup(b"w/x") is None
    write_manifest(tree, tmp_path / "manifest")
    manifest = Manifest.read(tmp_path / "manifest")
    assert manifest.file_count == 9
    assert manifest.diff(manifest.text_path.read_text()) == []
    assert manifest.diff(manifest.text_path.read_text().replace("d/kept", "d/lost"))[0].startswith("-")
