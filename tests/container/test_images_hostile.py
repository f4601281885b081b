"""Layers as hostile input, unpacked for real: compared with a second reader, with GNU tar and with umoci."""

from __future__ import annotations

import io
import os
import shutil
import stat
import subprocess
import time
import tracemalloc
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import pytest
from hostile import Entry, archive, compressed, digest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from lab.errors import ImageError
from lab.images.layers import Layer, pack, unpack
from lab.images.store import Origin, Store
from lab.images.tar.bounds import Bounds
from lab.images.tar.contents import Records, read_directory, read_layer
from lab.images.tar.extract import unpack_archive
from lab.images.tree import OPAQUE
from lab.images.upkeep import diff
from lab.images.upkeep.verify import differences
from lab.model import ImageConfig

NAMES = st.sampled_from([b"a", b"b", b"c", b"..", b".", b"", b".wh.a", b".wh.b", b".wh..wh..opq", b"\xff\n"])
PATHS = st.lists(NAMES, min_size=1, max_size=4).map(b"/".join)
ENTRIES = st.builds(
    lambda name, kind, link, mode, data, attribute: Entry(
        name=name or b".", kind=kind, link=link, mode=mode, uid=mode % 7, mtime=mode,
        data=data if kind == b"0" else b"", device=(1, 3) if kind in b"34" else (0, 0),
        pax={b"SCHILY.xattr." + attribute: b"\0value"} if attribute and kind in b"05" else {},
    ),
    PATHS, st.sampled_from([b"0", b"0", b"5", b"5", b"2", b"1", b"3", b"6"]), PATHS,
    st.integers(0, 0o7777), st.binary(max_size=40),
    st.sampled_from([b"", b"user.k", b"trusted.overlay.opaque", b"user.overlay.opaque", b"user.", b"user.\0"]),
)  # fmt: skip


@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(ENTRIES, max_size=7))
@example([Entry(name=b".wh.a", kind=b"0"), Entry(name=b"b", kind=b"1", link=b"a")])  # a link to a deletion
@example([Entry(name=b"a", kind=b"5", pax={b"SCHILY.xattr.user.k": bytes((64 << 10) + 1)})])
@example([Entry(name=b"a", kind=b"2", link=b"b", pax={b"SCHILY.xattr.user." + b"n" * 251: b"v"})])
def test_two_readers_agree_on_every_archive_and_nothing_outside_changes(
    tmp_path_factory: pytest.TempPathFactory, entries: list[Entry]
) -> None:
    outside = tmp_path_factory.mktemp("outside")
    (outside / "a").write_text("untouched")
    (outside / "b").mkdir()
    data = archive(entries)
    wanted: Records | None = None
    try:
        wanted = read_layer(io.BytesIO(data), expected_diff_id=digest(data))
    except ImageError:
        pass
    try:
        unpack(io.BytesIO(data), outside / "layer", expected_diff_id=digest(data))
        unpacked = True
    except ImageError:
        unpacked = False
    assert unpacked == (wanted is not None)
    if wanted is not None:
        assert list(differences(wanted, read_directory(outside / "layer"))) == []
    assert (outside / "a").read_text() == "untouched"
    assert (outside / "a").stat().st_nlink == 1
    assert not any((outside / "b").iterdir())
    assert {path.name for path in outside.iterdir()} <= {"a", "b", "layer"}
    shutil.rmtree(outside)


def layer(entries: list[Entry], target: Path, how: str = "plain") -> Path:
    data = archive(entries)
    unpack(io.BytesIO(compressed(data, how)), target, expected_diff_id=digest(data))
    return target


@pytest.mark.parametrize(
    "entries",
    [
        [Entry(name=b"../escaped")],
        [Entry(name=b"a/../../escaped")],
        [Entry(name=b"out", kind=b"2", link=b".."), Entry(name=b"out/escaped")],
        [Entry(name=b"out", kind=b"2", link=b"/"), Entry(name=b"out/escaped")],
        [Entry(name=b"d/", kind=b"5"), Entry(name=b"d/up", kind=b"2", link=b"../.."), Entry(name=b"d/up/escaped")],
        [Entry(name=b"out", kind=b"2", link=b"/proc/self/root"), Entry(name=b"out/escaped")],
        [Entry(name=b"hard", kind=b"1", link=b"../victim")],
        [Entry(name=b"hard", kind=b"1", link=b"/../victim")],
        [Entry(name=b"self", kind=b"1", link=b"self")],
        [Entry(name=b"null", kind=b"3", device=(0, 0))],
        [Entry(name=b"odd", kind=b"D")],
        [Entry(name=b"f"), Entry(name=b"f/below")],
        [Entry(name=b".wh..")],
        [Entry(name=b"x", pax={b"SCHILY.xattr.security.capability": b"junk"})],
    ],
    ids=lambda entries: entries[-1].name.decode(),
)
def test_a_hostile_entry_refuses_the_layer(entries: list[Entry], tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("untouched")
    (tmp_path / "in").mkdir()
    with pytest.raises(ImageError) as caught:
        layer(entries, tmp_path / "in" / "layer")
    assert "\n" not in caught.value.message
    assert victim.read_text() == "untouched"
    assert victim.stat().st_nlink == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "victim"]
    assert [path.name for path in (tmp_path / "in").iterdir()] == ["layer"]


def test_absolute_names_and_links_inside_are_honest(tmp_path: Path) -> None:
    entries = [
        Entry(name=b"/usr/lib/", kind=b"5", mode=0o755),
        Entry(name=b"lib", kind=b"2", link=b"usr/lib", mode=0o777),
        Entry(name=b"lib/so", data=b"elf"),
        Entry(name=b"/copy", kind=b"1", link=b"/lib/so"),
    ]
    root = layer(entries, tmp_path / "layer", "zstd")
    assert (root / "usr/lib/so").read_bytes() == (root / "copy").read_bytes() == b"elf"
    assert (root / "copy").stat().st_nlink == 2


def test_a_parent_s_bits_are_not_inherited(tmp_path: Path) -> None:
    place = tmp_path / "shared"
    place.mkdir()
    os.chown(place, 0, 1234)
    place.chmod(0o2775)
    entries = [
        Entry(name=b"d/", kind=b"5", mode=0o2755, gid=7),
        Entry(name=b"d/inner/", kind=b"5", mode=0o755),
        Entry(name=b"d/f"),
        Entry(name=b"implied/f"),
    ]
    root = layer(entries, place / "layer")
    found = {str(path.relative_to(root)): path.stat() for path in (root, *root.rglob("*"))}
    assert (found["d"].st_gid, found["d"].st_mode & 0o7777) == (7, 0o2755)
    for name in (".", "d/inner", "d/f", "implied", "implied/f"):
        assert found[name].st_gid == 0
        assert not found[name].st_mode & stat.S_ISGID


def test_set_uid_survives_its_owner_and_capabilities_too(tmp_path: Path) -> None:
    capability = bytes.fromhex("0100000200040000000000000000000000000000")
    pax = {b"SCHILY.xattr.security.capability": capability}
    root = layer(
        [Entry(name=b"su", mode=0o4755, uid=7, data=b"x"), Entry(name=b"ping", pax=pax, uid=9)], tmp_path / "l"
    )
    assert (root / "su").stat().st_mode & 0o7777 == 0o4755
    assert os.getxattr(root / "ping", "security.capability") == capability


def test_deletions_both_ways(tmp_path: Path) -> None:
    entries = [
        Entry(name=b".wh.gone"),
        Entry(name=b"new/", kind=b"5", mode=0o755),
        Entry(name=b".wh.new"),  # the layers below lose theirs; ours stays, by itself
        Entry(name=b".wh.later"),
        Entry(name=b"later/", kind=b"5", mode=0o755),
        Entry(name=b"opaque/", kind=b"5", mode=0o755),
        Entry(name=b"opaque/.wh..wh..opq"),
        Entry(name=b"opaque/.wh..wh.plnk"),
    ]
    root = layer(entries, tmp_path / "layer")
    assert sorted(path.name for path in root.iterdir()) == ["gone", "later", "new", "opaque"]
    assert (root / "gone").lstat().st_rdev == 0
    for name in ("new", "later", "opaque"):
        assert os.getxattr(root / name, OPAQUE) == b"y"
    assert not any((root / "opaque").iterdir())
    blob = tmp_path / "blob"
    made = pack(root, blob)
    with blob.open("rb") as reader:
        unpack(reader, tmp_path / "again", expected_diff_id=made.diff_id)
    assert {path: one.opaque for path, one in read_directory(tmp_path / "again").items()} == {
        path: one.opaque for path, one in read_directory(root).items()
    }


def test_a_reserved_name_is_not_packed_into_a_deletion(tmp_path: Path) -> None:
    (tmp_path / "upper").mkdir()
    (tmp_path / "upper" / ".wh.innocent").write_text("x")
    with pytest.raises(ImageError, match="that name is a deletion"):
        pack(tmp_path / "upper", tmp_path / "blob")


def test_zeros_become_holes(tmp_path: Path) -> None:
    data = bytes(8 << 20) + b"end"
    root = layer([Entry(name=b"zeros", data=data), Entry(name=b"small", data=bytes(100))], tmp_path / "layer")
    assert (root / "zeros").read_bytes() == data
    assert (root / "zeros").stat().st_blocks * 512 < 1 << 20
    pax = {b"GNU.sparse.map": b"1048576,3", b"GNU.sparse.size": b"%d" % (1 << 30), b"GNU.sparse.name": b"sparse"}
    root = layer([Entry(name=b"x", data=b"mid", pax=pax)], tmp_path / "other")
    with (root / "sparse").open("rb") as file:
        file.seek(1 << 20)
        assert file.read(4) == b"mid\0"
    assert (root / "sparse").stat().st_size == 1 << 30
    assert (root / "sparse").stat().st_blocks * 512 < 1 << 20


def test_paths_that_no_honest_archive_has(tmp_path: Path) -> None:
    deep = b"/".join([b"d"] * 250)
    root = layer(
        [Entry(name=b"f", pax={b"path": deep + b"/f"}, data=b"x"), Entry(name=b"n" * 100)], tmp_path / "layer"
    )
    assert (root / os.fsdecode(deep) / "f").read_text() == "x"
    with pytest.raises(ImageError, match="more than 255 directories"):
        layer([Entry(name=b"f", pax={b"path": deep + b"/" + deep})], tmp_path / "deep")
    further = [Entry(name=b"s", pax={b"path": deep + b"/f"}), Entry(name=b"l", kind=b"2", pax={b"linkpath": deep})]
    with pytest.raises(ImageError, match="more than 255 directories"):
        layer([*further, *(Entry(name=b"l" + b"/e" * count, kind=b"5") for count in range(1, 9))], tmp_path / "links")
    with pytest.raises(ImageError, match="File name too long"):
        layer([Entry(name=b"f", pax={b"path": b"n" * 256})], tmp_path / "long")


def test_a_directory_that_an_entry_replaces_is_finished_by_nobody_and_one_that_comes_after_it_is(
    tmp_path: Path,
) -> None:
    entries = [
        Entry(name=b"a", kind=b"5", mode=0o711),
        Entry(name=b"a/b/c", kind=b"5", mode=0o711),  # a/b has no entry of its own
        Entry(name=b"a/b", data=b"x"),
        Entry(name=b"a/b", kind=b"5", mode=0o700),
        Entry(name=b"a/b/c/d", kind=b"5", mode=0o755),
    ]
    root = layer(entries, tmp_path / "layer")
    modes = {name: stat.S_IMODE((root / name).stat().st_mode) for name in ("a", "a/b", "a/b/c", "a/b/c/d")}
    assert modes == {"a": 0o711, "a/b": 0o700, "a/b/c": 0o755, "a/b/c/d": 0o755}


@pytest.mark.parametrize("read", ["unpacked", "told"])
def test_replacing_directories_costs_no_more_than_replacing_files(read: str, tmp_path: Path) -> None:
    """Each removal looked through all directories of the layer once: hours, for a layer of some megabytes."""
    many = [Entry(name=b"d%d" % number, kind=b"5") for number in range(8000)]
    seconds = []
    for kind in (b"0", b"5"):
        data = archive([*many, *(Entry(name=b"turn", kind=each) for _ in range(5000) for each in (kind, b"0"))])
        began = time.process_time()
        if read == "unpacked":
            unpack_archive(io.BytesIO(data), tmp_path / kind.decode(), whiteouts=True)
        else:
            read_layer(io.BytesIO(data), expected_diff_id=digest(data))
        seconds.append(time.process_time() - began)
    assert seconds[1] < 2.5 * seconds[0]


@pytest.mark.parametrize("attribute", [b"user.k", b"other.k"])
@pytest.mark.parametrize("read", ["unpacked", "told"])
def test_attributes_of_directories_take_no_more_memory_than_a_layer_may(
    read: str, attribute: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are kept until the end. A layer of 2 MiB took 500 MiB of memory by one that is never set."""
    monkeypatch.setattr(Bounds, "configured", lambda: Bounds(told_bytes=1 << 20))
    pax = {b"SCHILY.xattr." + attribute: bytes(32 << 10)}
    data = archive([Entry(name=b"d%d" % number, kind=b"5", mode=0o755, pax=pax) for number in range(1000)])
    refused = pytest.raises(ImageError, match="attributes take more than 1 MiB")
    tracemalloc.start()
    with refused if attribute == b"user.k" else nullcontext():
        if read == "unpacked":
            unpack_archive(io.BytesIO(data), tmp_path / "layer", whiteouts=True)
        else:
            read_layer(io.BytesIO(data), expected_diff_id=digest(data))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 12 << 20


def test_bounds_stop_a_layer_early(tmp_path: Path) -> None:
    data = archive([Entry(name=b"%d" % number) for number in range(100)])
    with pytest.raises(ImageError, match="more than 10 files"):
        unpack_archive(io.BytesIO(data), tmp_path / "layer", whiteouts=True, bounds=Bounds(files=10))
    assert len(list((tmp_path / "layer").iterdir())) == 10


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A tree with one of everything that a layer may hold."""
    root = tmp_path / "tree"
    (root / "bin").mkdir(parents=True)
    (root / "bin" / "tool").write_bytes(b"\x7fELF" * 50_000)
    (root / "bin" / "tool").chmod(0o4755)
    os.link(root / "bin" / "tool", root / "bin" / "same")
    os.chown(root / "bin" / "tool", 1000, 1000)
    (root / "bin" / "link").symlink_to("../bin/tool")
    os.mkfifo(root / "fifo")
    os.mknod(root / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    (root / os.fsdecode(b"odd \xff\n")).write_text("x")
    (root / ("n" * 200)).mkdir(mode=0o1777)
    os.setxattr(root / "bin", "user.k", b"v")
    for path in (root, *root.rglob("*")):
        os.utime(path, (1_000_000_000, 1_000_000_000), follow_symlinks=False)
    return root


def test_our_layers_are_unpacked_alike_by_gnu_tar_and_theirs_by_us(tree: Path, tmp_path: Path) -> None:
    made = pack(tree, tmp_path / "ours", fresh_since=float("inf"))
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    options = ["--xattrs", "--xattrs-include=*", "--numeric-owner", "-p"]
    subprocess.run(
        ["tar", "-x", "--zstd", "--delay-directory-restore", *options, "-C", theirs, "-f", tmp_path / "ours"],
        check=True,
    )
    wanted = read_directory(tree)
    assert list(differences(wanted, read_directory(theirs))) == []
    with (tmp_path / "ours").open("rb") as blob:
        assert list(differences(wanted, read_layer(blob, expected_diff_id=made.diff_id))) == []
    for number, form in enumerate(("gnu", "posix")):
        xattrs = options[:2] if form == "posix" else []
        subprocess.run(
            ["tar", "-c", f"--format={form}", *xattrs, "--sort=name", "-C", tree, "-f", tmp_path / form, "."],
            check=True,
        )
        with (tmp_path / form).open("rb") as reader:
            unpack_archive(reader, tmp_path / str(number), whiteouts=True)
        found = read_directory(tmp_path / str(number))
        told = [line for line in differences(wanted, found) if line != "/bin: other xattrs" or form == "posix"]
        assert told == []


def test_umoci_merges_the_same_layers_to_the_same_files(tmp_path: Path, missing: Callable[[str], None]) -> None:
    if shutil.which("umoci") is None:
        missing("umoci")
    folders = [Entry(name=name, kind=b"5", mode=0o755) for name in (b"a/", b"b/", b"b/c/", b"d/")]
    files = [Entry(name=name, data=name, uid=7) for name in (b"a/x", b"a/y", b"b/old", b"b/c/z", b"d/e", b"f")]
    low = archive([*folders, *files, Entry(name=b"same", kind=b"1", link=b"a/x")])
    top = archive(
        [
            Entry(name=b"a/", kind=b"5", mode=0o700), Entry(name=b"a/.wh.x"),
            Entry(name=b"b/", kind=b"5", mode=0o755), Entry(name=b"b/.wh..wh..opq"), Entry(name=b"b/new", data=b"n"),
            Entry(name=b".wh.d"), Entry(name=b"f", kind=b"2", link=b"a/y", mode=0o777),
        ]
    )  # fmt: skip
    store = Store.open(tmp_path / "home")
    layers = tuple(_stored(store, data, tmp_path) for data in (low, top))
    image = store.add_image("merged", config=ImageConfig(), layers=layers, origin=Origin.BUILT)
    layout = f"oci:{tmp_path / 'layout'}:it"
    source = f"oci:{store.layout}:{image.name}"
    subprocess.run(["skopeo", "--insecure-policy", "copy", "-q", source, layout], check=True)
    subprocess.run(["umoci", "raw", "unpack", "--image", f"{tmp_path / 'layout'}:it", tmp_path / "root"], check=True)
    found = read_directory(tmp_path / "root")
    wanted = diff.files(store, image)
    # times of directories are what unpacking order makes of them there
    assert [line for line in differences(wanted, found) if not line.endswith(": other time")] == []
    assert sorted(wanted) == [b"", b"a", b"a/y", b"b", b"b/new", b"f", b"same"]


def _stored(store: Store, data: bytes, scratch: Path) -> Layer:
    """A layer of the store whose blob is gzip, which umoci can read."""
    blob = compressed(data, "gzip")
    path = scratch / "blob"
    path.write_bytes(blob)
    store.adopt_blob(path, digest(blob))
    kind = "application/vnd.oci.image.layer.v1.tar+gzip"
    return Layer(diff_id=digest(data), digest=digest(blob), size_bytes=len(blob), media_type=kind)
