"""The tar reader, and what is read of a layer without unpacking it: anywhere, without root."""

from __future__ import annotations

import io
import os
import subprocess
from pathlib import Path

import pytest
from hostile import END, Entry, archive, compressed, digest, gnu, record
from hypothesis import given, settings
from hypothesis import strategies as st

from lab.errors import ImageError, UsageError
from lab.images.tar import tarstream
from lab.images.tar.bounds import Bounds
from lab.images.tar.compression import Ahead
from lab.images.tar.contents import manifest_lines, merge, read_layer
from lab.images.tar.tarstream import Member, TarStream


def members(data: bytes, chunk: int = 1 << 20, bounds: Bounds | None = None) -> list[tuple[Member, bytes]]:
    source = io.BytesIO(data)
    stream = TarStream(lambda: source.read(chunk), bounds or Bounds())
    return [(member, b"".join(stream.data())) for member in stream]


def names(data: bytes, chunk: int = 1 << 20) -> list[bytes]:
    return [member.name for member, _ in members(data, chunk)]


@pytest.mark.parametrize("chunk", [1, 7, 511, 512, 513, 4096])
def test_how_the_stream_is_cut_makes_no_difference(chunk: int) -> None:
    data = archive([Entry(name=b"a", data=b"x" * 700), Entry(name=b"b", data=b"y" * 512), Entry(name=b"c")])
    assert [(one.name, content) for one, content in members(data, chunk)] == [
        (b"a", b"x" * 700), (b"b", b"y" * 512), (b"c", b""),
    ]  # fmt: skip


def test_what_nobody_reads_is_skipped() -> None:
    data = archive([Entry(name=b"a", data=b"x" * 5000), Entry(name=b"b", data=b"y")])
    source = io.BytesIO(data)
    stream = TarStream(lambda: source.read(100), Bounds())
    assert [member.name for member in stream] == [b"a", b"b"]


def test_names_of_any_length_and_bytes() -> None:
    long = b"/".join([b"d" * 200] * 5) + b"/\xff\xfe"
    assert names(archive([Entry(name=b"short", pax={b"path": long})])) == [long]
    assert names(gnu([long, b"n"])) == [long, b"n"]
    link = b"t" * 300
    found = members(archive([Entry(name=b"l", kind=b"2", pax={b"linkpath": link})]))[0][0]
    assert (found.kind, found.link) == (tarstream.SYMLINK, link)


def test_times_owners_and_attributes() -> None:
    pax = {b"mtime": b"-1.5", b"uid": b"70000", b"SCHILY.xattr.user.k": b"a=\n\0\xff", b"comment": b"x"}
    member = members(archive([Entry(name=b"f", pax=pax, gid=0o77777777)]))[0][0]
    assert (member.mtime_ns, member.uid, member.gid) == (-1_500_000_000, 70000, 0o77777777)
    assert member.xattrs == {b"user.k": b"a=\n\0\xff"}


def test_of_attributes_that_no_image_may_carry_nothing_is_kept() -> None:
    pax = {b"SCHILY.xattr." + name: b"value" for name in (b"trusted.overlay.opaque", b"user.overlay.opaque", b"x")}
    assert members(archive([Entry(name=b"f", pax=pax)]))[0][0].xattrs == {}


@pytest.mark.parametrize(
    ("name", "value"),
    [(b"user.k", bytes((64 << 10) + 1)), (b"user." + b"n" * 251, b""), (b"user.a\0b", b""), (b"user.", b"")],
)
def test_attributes_that_no_file_can_have(name: bytes, value: bytes) -> None:
    with pytest.raises(ImageError, match="extended attribute"):
        members(archive([Entry(name=b"f", pax={b"SCHILY.xattr." + name: value})]))


def test_what_entries_say_of_themselves_is_bounded() -> None:
    data = archive([Entry(name=b"n" * 90, kind=b"2", link=b"l" * 10)] * 20)
    assert len(members(data, bounds=Bounds(told_bytes=2000))) == 20
    with pytest.raises(ImageError, match="names and attributes"):
        members(data, bounds=Bounds(told_bytes=1999))


def test_the_room_for_names_grows_with_the_files_that_a_layer_may_have(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Bounds.configured().told_bytes == Bounds().told_bytes == 256 << 20
    monkeypatch.setenv("LAB_LAYER_MAX_FILES", "10")
    assert Bounds.configured().told_bytes == 256 << 20
    monkeypatch.setenv("LAB_LAYER_MAX_FILES", "2000000")
    assert Bounds.configured().told_bytes == 512 << 20


def test_a_global_header_holds_for_all_that_follow() -> None:
    records = record(b"uid", b"7")
    data = Entry(name=b"g", kind=b"g", data=records).raw() + archive([Entry(name=b"a"), Entry(name=b"b")])
    assert [member.uid for member, _ in members(data)] == [7, 7]


OLD_SPARSE = Entry(name=b"s", kind=b"S", data=b"x" * 512 + b"y" * 512)


def old_sparse(extents: list[tuple[int, int]], real: int) -> bytes:
    """GNU tar's own sparse header, which has its map where ustar has the prefix."""
    block = bytearray(OLD_SPARSE.raw())
    block[257:265] = b"ustar  \0"
    for index, (offset, length) in enumerate(extents):
        block[386 + 24 * index : 410 + 24 * index] = b"%011o\0%011o\0" % (offset, length)
    block[483:495] = b"%011o\0" % real
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block[:512])
    return bytes(block) + END


def test_sparse_files_in_all_forms() -> None:
    wanted = [(512, 512), (4096, 512)]
    old = members(old_sparse(wanted, 10_000))[0][0]
    pax01 = {b"GNU.sparse.map": b"512,512,4096,512", b"GNU.sparse.size": b"10000", b"GNU.sparse.name": b"s"}
    new01 = members(archive([Entry(name=b"x", data=OLD_SPARSE.data, pax=pax01)]))[0][0]
    pax10 = {b"GNU.sparse.major": b"1", b"GNU.sparse.minor": b"0", b"GNU.sparse.realsize": b"10000"}
    body = b"2\n512\n512\n4096\n512\n".ljust(512, b"\0") + OLD_SPARSE.data
    new10 = members(archive([Entry(name=b"s", data=body, pax=pax10)]))[0]
    for member in (old, new01, new10[0]):
        assert (member.name, member.kind, member.size_bytes, member.extents) == (b"s", tarstream.FILE, 10_000, wanted)
    assert new10[1] == OLD_SPARSE.data


@pytest.mark.parametrize(
    ("extents", "real"),
    [([(4096, 512), (512, 512)], 9999), ([(0, 512), (100, 512)], 9999), ([(0, 512)], 9999), ([(0, 1024)], 100)],
)
def test_a_sparse_map_that_does_not_fit_is_refused(extents: list[tuple[int, int]], real: int) -> None:
    with pytest.raises(ImageError, match="sparse"):
        members(old_sparse(extents, real))


@pytest.mark.parametrize(
    "data",
    [
        b"no tar at all" * 100,
        archive([Entry(name=b"a", data=b"x" * 600)])[:800],
        archive([Entry(name=b"a", size=1 << 40)]),
        archive([Entry(name=b"")]),
        archive([Entry(name=b"x", pax={b"path": b"a\0b"})]),
        archive([Entry(name=b"x", pax={b"path": b"a/" * 3000})]),
        archive([Entry(name=b"x", pax={b"size": b"-1"})]),
        archive([Entry(name=b"x", pax={b"size": b"1e9"})]),
        archive([Entry(name=b"x", uid=2**32 - 1)]),
        archive([Entry(name=b"x", uid=2**40)]),
        archive([Entry(name=b"x", pax={b"mtime": b"9" * 18})]),
        archive([Entry(name=b"x", kind=b"3", device=(1 << 20, 0))]),
        Entry(name=b"x", kind=b"x", data=b"99 path=a\n").raw() + archive([Entry(name=b"y")]),
        Entry(name=b"x", kind=b"x", data=b"0 path=a\n").raw() + archive([Entry(name=b"y")]),  # it was read for ever
        Entry(name=b"x", kind=b"x", data=record(b"path", b"a")).raw() + END,
        Entry(name=b"x", kind=b"x", data=b"", size=1 << 30).raw() + END,
        Entry(name=b"a").raw() + bytes(512) + Entry(name=b"smuggled").raw(),
    ],
    ids=lambda data: str(len(data)),
)
def test_what_can_t_be_meant_is_refused_in_one_line(data: bytes) -> None:
    with pytest.raises(ImageError) as caught:
        members(data)
    assert "\n" not in caught.value.message
    assert caught.value.hint


def test_a_changed_header_is_noticed() -> None:
    data = bytearray(archive([Entry(name=b"a")]))
    data[100] ^= 1
    with pytest.raises(ImageError, match="checksum"):
        members(bytes(data))


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=2048), st.integers(0, 2047), st.binary(min_size=1, max_size=64))
def test_no_bytes_make_it_fail_otherwise(noise: bytes, at: int, patch: bytes) -> None:
    good = archive([Entry(name=b"d/", kind=b"5"), Entry(name=b"d/f", data=b"x", pax={b"uid": b"5"})])
    for data in (noise, good[:at] + patch + good[at + len(patch) :]):
        try:
            members(data)
        except ImageError:
            pass


def test_limits_on_files_and_sizes() -> None:
    data = archive([Entry(name=b"%d" % number, data=b"x" * 100) for number in range(20)])
    assert len(members(data, bounds=Bounds(files=20, size_bytes=2000))) == 20
    with pytest.raises(ImageError, match="more than 19 files") as caught:
        members(data, bounds=Bounds(files=19))
    assert "LAB_LAYER_MAX_FILES" in caught.value.hint
    with pytest.raises(ImageError, match="holds more than 2 KiB"):
        members(archive([Entry(name=b"s", data=b"x" * 3000)]), bounds=Bounds(size_bytes=2048))


def test_a_hole_counts_as_what_it_will_be_read_as() -> None:
    pax = {b"GNU.sparse.map": b"", b"GNU.sparse.size": b"%d" % (1 << 50)}
    with pytest.raises(ImageError, match="holds more than"):
        members(archive([Entry(name=b"s", pax=pax)]))


@pytest.mark.parametrize("how", ["gzip", "zstd"])
def test_a_bomb_is_refused_by_its_ratio(how: str) -> None:
    blob = io.BytesIO(compressed(bytes(4 << 20), how))
    with Ahead(blob, Bounds(ratio=200, free_bytes=1 << 20)) as content, pytest.raises(ImageError, match="200 times"):
        content.digest()


def test_limits_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAB_LAYER_MAX_FILES", "5")
    monkeypatch.setenv("LAB_LAYER_MAX_BYTES", "1M")
    monkeypatch.setenv("LAB_LAYER_MAX_RATIO", "9")
    assert Bounds.configured() == Bounds(files=5, size_bytes=1 << 20, ratio=9)
    monkeypatch.setenv("LAB_LAYER_MAX_FILES", "many")
    with pytest.raises(UsageError, match="LAB_LAYER_MAX_FILES=many"):
        Bounds.configured()


@pytest.mark.parametrize("how", ["plain", "gzip", "zstd"])
def test_a_layer_is_read_without_being_unpacked(how: str) -> None:
    data = archive(
        [
            Entry(name=b"etc/", kind=b"5", mode=0o755),
            Entry(name=b"etc/passwd", data=b"root"),
            Entry(name=b"usr/lib/ld"),
            Entry(name=b"lib", kind=b"2", link=b"usr/lib", mode=0o777),
            Entry(name=b"lib/so", data=b"elf"),  # through the link, as merged /usr has it
            Entry(name=b"same", kind=b"1", link=b"etc/passwd"),
        ]
    )
    records = read_layer(io.BytesIO(compressed(data, how)), expected_diff_id=digest(data))
    paths = b" etc etc/passwd lib same usr usr/lib usr/lib/ld usr/lib/so".split(b" ")
    assert sorted(records) == paths
    assert records[b"same"].group == records[b"etc/passwd"].group == b"etc/passwd"
    assert records[b"usr"].mtime_ns is None
    with pytest.raises(ImageError, match="but the image says"):
        read_layer(io.BytesIO(data), expected_diff_id=digest(b""))


def test_layers_merge_as_overlayfs_merges_them() -> None:
    low = archive([Entry(name=b"a/x"), Entry(name=b"a/y"), Entry(name=b"b/x"), Entry(name=b"c"), Entry(name=b"d/x")])
    top = archive(
        [
            Entry(name=b"a/.wh.x"), Entry(name=b"b/.wh..wh..opq"), Entry(name=b"b/new", data=b"1"),
            Entry(name=b"c/", kind=b"5", mode=0o700), Entry(name=b"d", kind=b"2", link=b"c", mode=0o777),
            Entry(name=b".wh.e"), Entry(name=b"e", data=b"both"),
        ]
    )  # fmt: skip
    merged = merge(read_layer(io.BytesIO(data), expected_diff_id=digest(data)) for data in (low, top))
    assert sorted(merged) == [b"", b"a", b"a/y", b"b", b"b/new", b"c", b"d", b"e"]
    assert (merged[b"c"].kind, merged[b"d"].kind) == ("d", "l")
    assert next(line for line in manifest_lines(merged) if line.endswith("/c")) == "d 0700 0 0 0 - /c"


def test_gnu_tar_s_own_archives_are_read(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "sub").mkdir(parents=True)
    (tree / "sub" / ("n" * 150)).write_text("long")
    with (tree / "sparse").open("wb") as file:
        file.seek(1 << 20)
        file.write(b"end")
    os.link(tree / "sparse", tree / "twin")
    for form in ("gnu", "posix"):
        words = ["tar", "-c", f"--format={form}", "--sparse", "-C", str(tree), "."]
        data = subprocess.run(words, capture_output=True, check=True).stdout
        records = read_layer(io.BytesIO(data), expected_diff_id=digest(data))
        assert sorted(records) == [b"", b"sparse", b"sub", b"sub/" + b"n" * 150, b"twin"]
        assert records[b"sparse"].size == (1 << 20) + 3
        assert records[b"sparse"].value == digest(bytes(1 << 20) + b"end").removeprefix("sha256:")
        assert records[b"twin"].group == b"sparse"
