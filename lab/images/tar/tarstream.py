"""A reader of tar archives that nobody vouches for, as a stream: ustar, PAX, GNU's long names and sparse files.

Sources: pax(1), "ustar Interchange Format" and "pax Extended Header"; tar(5); GNU tar's manual, "Storing Sparse
Files". Names are bytes, as the kernel has them. Everything a header claims is checked before it is believed; what it
means for a file system is the extractor's affair. Standard library's ``tarfile`` decodes every name, makes an object
of thirty fields per member, and takes five times as long.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from lab.errors import ImageError
from lab.images.tar.attributes import can_be, keeps_xattr
from lab.images.tar.bounds import Bounds

BLOCK = 512
ZEROS = bytes(BLOCK)
XATTR_RECORD = b"SCHILY.xattr."
FILE, HARD_LINK, SYMLINK, CHARACTER, BLOCK_DEVICE, DIRECTORY, FIFO = b"0123456"  # type flags, as numbers
OLD_FILE, CONTIGUOUS = b"\0"[0], b"7"[0]
LONG_NAME, LONG_LINK, PAX, SOLARIS_PAX, PAX_GLOBAL, GNU_SPARSE = b"LKxXgS"
EXTENSIONS = frozenset(b"LKxXg")
XATTR_BYTES = 200  # that it takes in memory beside its name and its value
MOST_EXTENSION_BYTES = (
    4 << 20
)  # of all extended headers before a member: names end at 4 KiB, attributes at 64 KiB each
LONGEST_LINK_BYTES = 4096  # PATH_MAX, path_resolution(7)
LONGEST_NAME_BYTES = LONGEST_LINK_BYTES - 256  # it lies below a layer's folder, and is asked for by its whole path
MOST_GLOBAL_BYTES = 1 << 20  # of all global headers
GLOBALS = frozenset((b"path", b"linkpath", b"uid", b"gid", b"size", b"mtime"))
MOST_SEGMENTS = 1 << 20
NO_ID = 2**32 - 1  # chown(2) takes it for "leave as it is"
LATEST_SECOND = 2**53

Extents = list[tuple[int, int]]


@dataclass(slots=True)
class Member:
    """One entry. ``stored_bytes`` follow it in the stream; a regular file's length is ``size_bytes``.

    ``extents`` of a sparse file are (offset, length) of the data, in order and apart; None for all other files.
    """

    name: bytes
    kind: int
    mode: int
    uid: int
    gid: int
    mtime_ns: int
    stored_bytes: int
    size_bytes: int
    link: bytes
    device: tuple[int, int]
    xattrs: dict[bytes, bytes] = field(default_factory=dict)
    extents: Extents | None = None


def damaged(what: str) -> ImageError:
    """The error for an archive that can't be meant."""
    return ImageError(f"not a readable archive: {what}", hint="build or fetch it again")


class TarStream:
    """Iterates over the members of what ``read`` returns piece by piece, ``b""`` at the end.

    `data` gives the current member's bytes; what is not asked for is skipped. Raises ImageError.
    """

    def __init__(self, read: Callable[[], bytes], bounds: Bounds) -> None:
        self._read = read
        self._bounds = bounds
        self._chunk = b""
        self._at = 0
        self._left = 0  # of the current member's data
        self._padding = 0
        self._global: dict[bytes, bytes] = {}
        self._global_bytes = 0
        self._files = 0
        self._size_bytes = 0
        self._told_bytes = 0

    def __iter__(self) -> Iterator[Member]:
        while (member := self._next()) is not None:
            self._files += 1
            self._bounds.check_files(self._files)
            self._told_bytes += len(member.name) + len(member.link)
            if member.xattrs:
                self._told_bytes += sum(XATTR_BYTES + len(key) + len(value) for key, value in member.xattrs.items())
            self._bounds.check_told(self._told_bytes)
            if member.kind == FILE:
                self._size_bytes += member.size_bytes
                self._bounds.check_size(self._size_bytes)
            yield member
            self._skip()

    def data(self) -> Iterator[memoryview]:
        """What is left of the current member's data."""
        while self._left:
            if self._at == len(self._chunk):
                self._fill()
            end = min(self._at + self._left, len(self._chunk))
            piece = memoryview(self._chunk)[self._at : end]
            self._left -= end - self._at
            self._at = end
            yield piece

    # -- bytes -------------------------------------------------------------------------------------------------

    def _fill(self) -> None:
        self._chunk, self._at = self._read(), 0
        if not self._chunk:
            raise damaged("it ends in the middle of a file")

    def _take(self, count: int) -> bytes:
        """Exactly ``count`` bytes."""
        pieces = []
        while count:
            if self._at == len(self._chunk):
                self._fill()
            piece = self._chunk[self._at : self._at + count]
            self._at += len(piece)
            count -= len(piece)
            pieces.append(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _skip(self) -> None:
        left = self._left + self._padding
        self._left = self._padding = 0
        while left:
            if self._at == len(self._chunk):
                self._fill()
            step = min(left, len(self._chunk) - self._at)
            self._at += step
            left -= step

    def _header(self) -> bytes | None:
        """The next block; None at the archive's end."""
        end = self._at + BLOCK
        if end <= len(self._chunk):
            block = self._chunk[self._at : end]
            self._at = end
        else:
            if self._at == len(self._chunk):
                self._chunk, self._at = self._read(), 0
                if not self._chunk:
                    return None  # many writers leave out the blocks of zeros
            block = self._take(BLOCK)
        return block

    # -- headers -----------------------------------------------------------------------------------------------

    def _next(self) -> Member | None:
        records: dict[bytes, bytes] = {}
        long_name = long_link = b""
        extended = 0
        while True:
            block = self._header()
            if block is None or block == ZEROS:
                if records or long_name or long_link:
                    raise damaged("it ends after an extended header")
                if block is not None and (self._header() or ZEROS) != ZEROS:
                    raise damaged("it goes on after its end")
                return None
            kind = block[156]
            _check_sum(block)
            size = _number(block[124:136])
            extended += size
            if kind in EXTENSIONS and extended > MOST_EXTENSION_BYTES:
                raise damaged(f"extended headers of {extended} bytes before one member")
            if kind in (PAX, SOLARIS_PAX):
                records |= _pax_records(self._extension(size))
            elif kind == PAX_GLOBAL:
                self._take_global(size)
            elif kind == LONG_NAME:
                long_name = self._extension(size).rstrip(b"\0")
            elif kind == LONG_LINK:
                long_link = self._extension(size).rstrip(b"\0")
            else:
                return self._member(block, kind, size, {**self._global, **records}, long_name, long_link)

    def _take_global(self, size: int) -> None:
        """Of records for all members those that are read: each member pays for what is kept."""
        self._global_bytes += size
        if self._global_bytes > MOST_GLOBAL_BYTES:
            raise damaged(f"global headers of {self._global_bytes} bytes")
        found = _pax_records(self._extension(size))
        self._global |= {key: value for key, value in found.items() if key in GLOBALS}

    def _extension(self, size: int) -> bytes:
        if size > MOST_EXTENSION_BYTES:
            raise damaged(f"an extended header of {size} bytes")
        text = self._take(size)
        self._take(-size % BLOCK)
        return text

    def _member(
        self, block: bytes, kind: int, size: int, records: dict[bytes, bytes], long_name: bytes, long_link: bytes
    ) -> Member:
        name = long_name or _name(block)
        link = long_link or block[157:257].partition(b"\0")[0]
        uid, gid = _number(block[108:116]), _number(block[116:124])
        mtime_ns = _number(block[136:148]) * 1_000_000_000
        xattrs = {}
        if records:
            name = records.get(b"GNU.sparse.name") or records.get(b"path") or name
            link = records.get(b"linkpath") or link
            uid, gid = _decimal(records, b"uid", uid), _decimal(records, b"gid", gid)
            size = _decimal(records, b"size", size)
            if b"mtime" in records:
                mtime_ns = _nanoseconds(records[b"mtime"])
            xattrs = _attributes(records)
        if kind in (OLD_FILE, CONTIGUOUS):
            kind = DIRECTORY if name.endswith(b"/") else FILE
        device = (0, 0)
        if kind in (CHARACTER, BLOCK_DEVICE):
            device = _number(block[329:337]), _number(block[337:345])
        if kind not in (FILE, GNU_SPARSE):
            size = 0  # ustar: no data, whatever the field says
        _check_claims(name, link, uid, gid, mtime_ns, device)
        if kind == SYMLINK and not link:
            raise damaged("a symbolic link to nothing")
        member = Member(
            name, kind, _number(block[100:108]) & 0o7777, uid, gid, mtime_ns, size, size, link, device, xattrs
        )
        self._left, self._padding = size, -size % BLOCK
        if kind == GNU_SPARSE:
            self._read_old_sparse(member, block)
        elif records and kind == FILE and any(key.startswith(b"GNU.sparse.") for key in records):
            self._read_pax_sparse(member, records)
        return member

    # -- sparse files ------------------------------------------------------------------------------------------

    def _read_old_sparse(self, member: Member, block: bytes) -> None:
        """Extents in the header, then in blocks that follow it until one says that it is the last."""
        member.kind = FILE
        member.size_bytes = _number(block[483:495])
        extents = _old_extents(block[386:482])
        more = block[482]
        while more:
            further = self._take(BLOCK)
            extents += _old_extents(further[:504])
            more = further[504]
            if len(extents) > MOST_SEGMENTS:
                raise damaged("a sparse file of too many pieces")
        _check_extents(member, extents)

    def _read_pax_sparse(self, member: Member, records: dict[bytes, bytes]) -> None:
        """Formats 0.1, with the map in one record, and 1.0, with the map before the data."""
        real = records.get(b"GNU.sparse.realsize") or records.get(b"GNU.sparse.size")
        if real is None:
            raise damaged("a sparse file without a size")
        member.size_bytes = _digits(real)
        if records.get(b"GNU.sparse.major") == b"1":
            numbers = self._map_before_data(member)
        elif b"GNU.sparse.map" in records:
            text = records[b"GNU.sparse.map"]
            numbers = [_digits(word) for word in text.split(b",")] if text else []
        else:
            raise damaged("a sparse file in a form nobody writes any more (0.0)")
        _check_extents(member, list(zip(numbers[::2], numbers[1::2], strict=True)) if len(numbers) % 2 == 0 else None)

    def _map_before_data(self, member: Member) -> list[int]:
        blocks: list[bytes] = []
        count, lines = -1, 0
        while count < 0 or lines < 1 + 2 * count:
            if self._left < BLOCK or len(blocks) * BLOCK > MOST_EXTENSION_BYTES:
                raise damaged("a sparse file's map is cut")
            blocks.append(self._take(BLOCK))
            lines += blocks[-1].count(b"\n")
            self._left -= BLOCK
            if count < 0 and lines:
                count = _digits(b"".join(blocks).partition(b"\n")[0])
        member.stored_bytes = self._left
        return [_digits(line) for line in b"".join(blocks).split(b"\n")[1 : 1 + 2 * count]]


def _check_sum(block: bytes) -> None:
    """The sum of the header's bytes, its own field taken as spaces.

    Adler-32's lower half is 1 + that sum modulo 65521 (RFC 1950), and C computes it.
    """
    told = _number(block[148:156])
    found = zlib.adler32(block[156:], zlib.adler32(b"        ", zlib.adler32(block[:148]))) & 0xFFFF
    if (told + 1) % 65521 != found:
        raise damaged("a header's checksum is wrong")


def _number(text: bytes) -> int:
    """A numeric field: octal, or GNU's base 256 where its first bit is set."""
    if text[0] & 0x80:
        if text[0] != 0x80:
            raise damaged("a negative or overlong number")
        return int.from_bytes(text[1:], "big")
    digits = text.strip(b" \0")
    try:
        number = int(digits, 8) if digits else 0
    except ValueError:
        raise damaged(f"{digits!r} is not an octal number") from None
    if number < 0:
        raise damaged("a negative number")
    return number


def _digits(text: bytes) -> int:
    if not text.isdigit() or len(text) > 19:
        raise damaged(f"{text[:30]!r} is not a number")
    return int(text)


def _decimal(records: dict[bytes, bytes], key: bytes, otherwise: int) -> int:
    return _digits(records[key]) if records.get(key) else otherwise


def _nanoseconds(text: bytes) -> int:
    """PAX's times: decimal seconds, with a fraction and a sign if need be."""
    sign = -1 if text.startswith(b"-") else 1
    whole, _, fraction = text.removeprefix(b"-").partition(b".")
    return sign * (_digits(whole) * 1_000_000_000 + _digits((fraction + b"000000000")[:9]))


def _name(block: bytes) -> bytes:
    name = block[:100].partition(b"\0")[0]
    if block[257:263] == b"ustar\0":
        end = 476 if block[508:512] == b"tar\0" else 500  # star keeps times where POSIX has the prefix's end
        if prefix := block[345:end].partition(b"\0")[0]:
            return prefix + b"/" + name
    return name


def _pax_records(text: bytes) -> dict[bytes, bytes]:
    """``LENGTH KEY=VALUE\\n`` …; the length covers all of its record."""
    records = {}
    at = 0
    while at < len(text):
        digits, space, _ = text[at : at + 20].partition(b" ")
        end = at + _digits(digits)
        key, equals, value = text[at + len(digits) + 1 : end - 1].partition(b"=")
        # a length of nothing would end before its record begins, and be read for ever
        if not space or not equals or not key or not at < end <= len(text) or text[end - 1] != 0x0A:
            raise damaged("an extended header's record is broken")
        records[key] = value
        at = end
    return records


def _attributes(records: dict[bytes, bytes]) -> dict[bytes, bytes]:
    """The extended attributes among ``records`` that an image may carry; of no other is anything kept."""
    found = {}
    for key, value in records.items():
        attribute = key[len(XATTR_RECORD) :]
        if key.startswith(XATTR_RECORD) and keeps_xattr(os.fsdecode(attribute)):
            if not can_be(attribute, value):
                raise damaged("an extended attribute that no file can have")
            found[attribute] = value
    return found


def _old_extents(text: bytes) -> Extents:
    pairs = [text[at : at + 24] for at in range(0, len(text), 24)]
    return [(_number(pair[:12]), _number(pair[12:])) for pair in pairs if pair[0]]


def _check_extents(member: Member, extents: Extents | None) -> None:
    end = total = 0
    for offset, length in extents or ():
        if offset < end:
            raise damaged("a sparse file's pieces overlap")
        end = offset + length
        total += length
    if extents is None or end > member.size_bytes or total != member.stored_bytes:
        raise damaged("a sparse file's map does not fit its data")
    member.extents = extents


def _check_claims(name: bytes, link: bytes, uid: int, gid: int, mtime_ns: int, device: tuple[int, int]) -> None:
    """What no system call would take, or would take for something else."""
    if not name or len(name) > LONGEST_NAME_BYTES or len(link) > LONGEST_LINK_BYTES or b"\0" in name or b"\0" in link:
        raise damaged("a name that no file can have")
    if uid >= NO_ID or gid >= NO_ID:
        raise damaged("an owner that no file can have")
    if abs(mtime_ns) > LATEST_SECOND * 1_000_000_000:
        raise damaged("a time that no file can have")
    if device[0] >= 1 << 12 or device[1] >= 1 << 20:
        raise damaged("a device that no kernel has")
