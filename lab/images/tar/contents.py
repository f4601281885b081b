"""What a layer holds, read from its blob: nothing is unpacked, no privilege is needed.

This is a second reading of the same archive: `verify` compares it with what was unpacked, `diff` compares images by
it. Its records say what lstat(2) would say of the unpacked files.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO

from lab.errors import ImageError
from lab.images.manifest import escape, excluded, unescape
from lab.images.tar import tarstream
from lab.images.tar.attributes import USERS, keeps_xattr
from lab.images.tar.bounds import Bounds
from lab.images.tar.compression import Ahead
from lab.images.tar.extract import OPAQUE_MARKER, REFUSED, WHITEOUT, check_depth, components
from lab.images.tar.tarstream import Member, TarStream
from lab.images.tree import MAX_SYMLINKS, is_opaque, is_whiteout

LETTERS = {
    tarstream.FILE: "f", tarstream.DIRECTORY: "d", tarstream.SYMLINK: "l", tarstream.CHARACTER: "c",
    tarstream.BLOCK_DEVICE: "b", tarstream.FIFO: "p",
}  # fmt: skip
TYPES = {
    stat.S_IFREG: "f", stat.S_IFDIR: "d", stat.S_IFLNK: "l", stat.S_IFCHR: "c", stat.S_IFBLK: "b", stat.S_IFIFO: "p",
    stat.S_IFSOCK: "s",
}  # fmt: skip
HIDDEN = "w"
"""The type of a deletion: a whiteout."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FileRecord:
    """One path. ``value`` is the content's SHA-256, a link's target or a device's numbers, as the manifest has them.

    ``group`` is the first name, by its bytes, of a file with several. ``mtime_ns`` is None where no entry tells it.
    """

    kind: str
    mode: int = 0
    uid: int = 0
    gid: int = 0
    size: int = 0
    value: str = "-"
    mtime_ns: int | None = None
    xattrs: tuple[tuple[str, bytes], ...] = ()
    group: bytes = b""
    opaque: bool = False


IMPLIED = FileRecord(kind="d", mode=0o755)
Records = dict[bytes, FileRecord]


class _Tree(dict[bytes, FileRecord]):
    """Records that are still changed: removing a directory costs what is in it, and no look at all others.

    A path comes after those above it.
    """

    def __init__(self) -> None:
        super().__init__()
        self._below: dict[bytes, set[bytes]] = {}

    def __setitem__(self, path: bytes, record: FileRecord) -> None:
        if path and path not in self:
            self._below.setdefault(path.rpartition(b"/")[0], set()).add(path)
        super().__setitem__(path, record)

    def drop(self, path: bytes) -> None:
        """Remove ``path`` and all below it."""
        pending = [path]
        while pending:
            here = pending.pop()
            self.pop(here, None)
            pending.extend(self._below.pop(here, ()))


@dataclass(slots=True)
class _Reading:
    """A layer while its archive is read; `names` has the inode-like number of each regular file's name."""

    records: _Tree = field(default_factory=_Tree)
    inodes: dict[bytes, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.records[b""] = IMPLIED


def read_layer(blob: IO[bytes], *, expected_diff_id: str) -> Records:
    """Every path of a layer, the root as ``b""``. Raises ImageError for what `layers.unpack` would refuse."""
    limits = Bounds.configured()
    reading = _Reading()
    with Ahead(blob, limits) as content:
        stream = TarStream(content.read, limits)
        for number, member in enumerate(stream):
            _apply(reading, member, stream, number)
        found = content.digest()
    if found != expected_diff_id:
        raise ImageError(
            f"a layer's content is {found}, but the image says {expected_diff_id}", hint="build or fetch it again"
        )
    return _grouped(reading.records, reading.inodes)


def read_directory(root: Path) -> Records:
    """The same of a layer unpacked at ``root``. Needs root."""
    records: Records = {}
    inodes: dict[bytes, int] = {}
    for path, real in _walk(os.fsencode(root)):
        status = os.lstat(real)
        records[path] = _found(real, status)
        if stat.S_ISREG(status.st_mode):
            inodes[path] = status.st_ino
    return _grouped(records, inodes)


def merge(layers: Iterable[Records]) -> Records:
    """The image's files, from its layers, the bottom one first."""
    merged = _Tree()
    inodes: dict[bytes, int] = {}
    numbers: dict[tuple[int, bytes], int] = {}
    for number, records in enumerate(layers):
        for path in sorted(records, key=lambda path: path.count(b"/")):
            record = records[path]
            below = merged.get(path)
            if record.kind == HIDDEN or record.opaque or (below is not None and record.kind != below.kind == "d"):
                merged.drop(path)
            if record.kind != HIDDEN:
                merged[path] = replace(record, opaque=False, group=b"")
                inodes[path] = numbers.setdefault((number, record.group or path), len(numbers))
        merged[b""] = replace(records[b""], opaque=False)
    return _grouped(merged, inodes)


def manifest_lines(records: Records) -> Iterator[str]:
    """The manifest (docs/images.md) of merged records."""
    for path in sorted(records):
        if not excluded(path):
            one = records[path]
            yield f"{one.kind} {one.mode:04o} {one.uid} {one.gid} {one.size} {one.value} {escape(b'/' + path)}"


# -- from an archive -----------------------------------------------------------------------------------------


def _apply(reading: _Reading, member: Member, stream: TarStream, number: int) -> None:
    """One member, as `Extractor.extract` would have it."""
    path = components(member.name)
    records = reading.records
    if not path:
        if member.kind == tarstream.DIRECTORY:
            records[b""] = replace(_told(member, stream), opaque=records[b""].opaque)
        return
    folder, _, name = path.rpartition(b"/")
    folder = _resolve(records, folder)
    path = folder + b"/" + name if folder else name
    if name.startswith(WHITEOUT):
        _hide(records, folder, name)
        return
    before = records.get(path)
    if member.kind == tarstream.DIRECTORY:
        opaque = before is not None and (before.opaque or before.kind == HIDDEN)
        records[path] = replace(_told(member, stream), opaque=opaque)
        return
    if before is not None:
        records.drop(path)
        reading.inodes.pop(path, None)
    if member.kind == tarstream.HARD_LINK:
        target = components(member.link)
        above, _, last = target.rpartition(b"/")
        above = _resolve(records, above, make=False)
        target = above + b"/" + last if above else last
        if target not in records or records[target].kind in (HIDDEN, "d"):
            raise ImageError(f"an archive's hard link {os.fsdecode(path)!r} leads to nothing", hint=REFUSED)
        records[path] = records[target]
        if target in reading.inodes:
            reading.inodes[path] = reading.inodes[target]
        return
    records[path] = _told(member, stream)
    if member.kind == tarstream.FILE:
        reading.inodes[path] = number


def _told(member: Member, stream: TarStream) -> FileRecord:
    """What an entry says of itself."""
    kind = LETTERS.get(member.kind)
    if kind is None or (kind == "c" and member.device == (0, 0)):
        raise ImageError(f"an archive holds {os.fsdecode(member.name)!r} of a type it may not have", hint=REFUSED)
    value, size = "-", 0
    if kind == "f":
        size, value = member.size_bytes, _content(member, stream)
    elif kind == "l":
        value = escape(member.link)
    elif kind in "cb":
        value = "{}:{}".format(*member.device)
    pairs = [(os.fsdecode(key), data) for key, data in member.xattrs.items()]
    kept = tuple(sorted((key, data) for key, data in pairs if kind in "fd" or not key.startswith(USERS)))
    return FileRecord(
        kind=kind, mode=0o777 if kind == "l" else member.mode, uid=member.uid, gid=member.gid, size=size, value=value,
        mtime_ns=member.mtime_ns, xattrs=kept,
    )  # fmt: skip


def _content(member: Member, stream: TarStream) -> str:
    """The digest of a file, its holes as zeros."""
    state = hashlib.sha256()
    if member.extents is None:
        for piece in stream.data():
            state.update(piece)
        return state.hexdigest()
    at = 0
    pieces = stream.data()
    piece = memoryview(b"")
    for offset, length in member.extents:
        _zeros(state, offset - at)
        at, left = offset + length, length
        while left:
            piece = piece or next(pieces)
            state.update(piece[:left])
            left, piece = left - len(piece[:left]), piece[left:]
    _zeros(state, member.size_bytes - at)
    return state.hexdigest()


def _zeros(state: hashlib._Hash, count: int) -> None:
    block = bytes(min(count, 1 << 20))
    while count > 0:
        state.update(block[:count])
        count -= len(block)


def _hide(records: Records, folder: bytes, name: bytes) -> None:
    if name == OPAQUE_MARKER:
        records[folder] = replace(records[folder], opaque=True)
        return
    hidden = name.removeprefix(WHITEOUT)
    if name.startswith(WHITEOUT + WHITEOUT):
        return
    if hidden in (b"", b".", b".."):
        raise ImageError(f"an archive holds the whiteout {os.fsdecode(name)!r}", hint=REFUSED)
    path = folder + b"/" + hidden if folder else hidden
    before = records.get(path)
    if before is None:
        records[path] = FileRecord(kind=HIDDEN)
    elif before.kind == "d":
        records[path] = replace(before, opaque=True)


def _resolve(records: Records, path: bytes, *, make: bool = True) -> bytes:
    """The directory that ``path`` leads to, links followed while they stay inside; missing ones are implied."""
    pending = path.split(b"/")[::-1] if path else []
    done: list[bytes] = []
    followed = 0
    while pending:
        part = pending.pop()
        if part in (b"", b"."):
            continue
        if part == b"..":
            if not done:
                raise _leads_out(path)
            done.pop()
            continue
        here = b"/".join([*done, part])
        record = records.get(here)
        if record is None and make and not followed:
            check_depth(here)
            records[here] = record = IMPLIED
        if record is not None and record.kind == "l":
            followed += 1
            target = unescape(record.value)
            if target.startswith(b"/") or followed > MAX_SYMLINKS:
                raise _leads_out(path)
            pending.extend(target.split(b"/")[::-1])
        elif record is None or record.kind != "d":
            raise _leads_out(path)
        else:
            done.append(part)
    check_depth(b"/".join([*done, b""]))
    return b"/".join(done)


def _leads_out(path: bytes) -> ImageError:
    return ImageError(
        f"an archive's path {os.fsdecode(path)!r} leads through a file or out of the archive", hint=REFUSED
    )


# -- from a directory ----------------------------------------------------------------------------------------


def _walk(root: bytes) -> Iterator[tuple[bytes, bytes]]:
    yield b"", root
    pending = [b""]
    while pending:
        path = pending.pop()
        with os.scandir(os.path.join(root, path) if path else root) as entries:
            for entry in entries:
                inner = path + b"/" + entry.name if path else entry.name
                yield inner, entry.path
                if entry.is_dir(follow_symlinks=False):
                    pending.append(inner)


def _found(real: bytes, status: os.stat_result) -> FileRecord:
    if is_whiteout(status):
        return FileRecord(kind=HIDDEN)
    kind = TYPES[stat.S_IFMT(status.st_mode)]
    value, size = "-", 0
    if kind == "f":
        size = status.st_size
        with open(real, "rb") as handle:
            value = hashlib.file_digest(handle, "sha256").hexdigest()
    elif kind == "l":
        value = escape(os.readlink(real))
    elif kind in "cb":
        value = f"{os.major(status.st_rdev)}:{os.minor(status.st_rdev)}"
    names = sorted(filter(keeps_xattr, os.listxattr(real, follow_symlinks=False)))
    xattrs = tuple((name, os.getxattr(real, name, follow_symlinks=False)) for name in names)
    return FileRecord(
        kind=kind, mode=stat.S_IMODE(status.st_mode), uid=status.st_uid, gid=status.st_gid, size=size, value=value,
        mtime_ns=status.st_mtime_ns, xattrs=xattrs, opaque=kind == "d" and is_opaque(real),
    )  # fmt: skip


def _grouped(records: Records, inodes: dict[bytes, int]) -> Records:
    """Every name of a file with several tells the first of them."""
    first: dict[int, bytes] = {}
    count: dict[int, int] = {}
    inodes = {path: inode for path, inode in inodes.items() if path in records and records[path].kind == "f"}
    for path in sorted(inodes):
        first.setdefault(inodes[path], path)
        count[inodes[path]] = count.get(inodes[path], 0) + 1
    return records | {
        path: replace(records[path], group=first[inode]) for path, inode in inodes.items() if count[inode] > 1
    }
