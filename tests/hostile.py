"""Tar archives written byte by byte: what no honest program writes, and what ``tarfile`` would refuse to."""

from __future__ import annotations

import gzip
import hashlib
import io
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass, field

import zstandard

END = bytes(1024)


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One member: header fields as they shall stand there, and what follows the header."""

    name: bytes
    kind: bytes = b"0"
    data: bytes = b""
    link: bytes = b""
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    mtime: int = 1_000_000_000
    device: tuple[int, int] = (0, 0)
    size: int | None = None  # claims another one than the data's
    pax: dict[bytes, bytes] = field(default_factory=dict)

    def raw(self) -> bytes:
        """The member's blocks, its extended header first."""
        extended = b""
        if self.pax:
            records = b"".join(record(key, value) for key, value in self.pax.items())
            extended = Entry(name=b"PaxHeaders/x", kind=b"x", data=records).raw()
        size = len(self.data) if self.size is None else self.size
        block = bytearray(512)
        fields = (
            (0, self.name[:100]), (100, b"%07o\0" % self.mode), (108, number(self.uid)), (116, number(self.gid)),
            (124, number(size, 12)), (136, number(self.mtime, 12)), (148, b" " * 8), (156, self.kind),
            (157, self.link[:100]), (257, b"ustar\0" + b"00"), (329, number(self.device[0])),
            (337, number(self.device[1])),
        )  # fmt: skip
        for at, text in fields:
            block[at : at + len(text)] = text
        block[148:156] = b"%06o\0 " % sum(block)
        return extended + bytes(block) + self.data + bytes(-len(self.data) % 512)


def number(value: int, width: int = 8) -> bytes:
    """Octal where it fits, else GNU's base 256."""
    text = b"%0*o" % (width - 1, value)
    return text + b"\0" if len(text) < width else b"\x80" + value.to_bytes(width - 1, "big")


def record(key: bytes, value: bytes) -> bytes:
    """One record of an extended header; its length counts itself."""
    length = len(key) + len(value) + 3
    while len(str(length)) + len(key) + len(value) + 3 != length:
        length = len(str(length)) + len(key) + len(value) + 3
    return b"%d %b=%b\n" % (length, key, value)


def archive(entries: Sequence[Entry]) -> bytes:
    """A whole tar."""
    return b"".join(entry.raw() for entry in entries) + END


def digest(data: bytes) -> str:
    """As OCI writes it."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def compressed(data: bytes, how: str) -> bytes:
    """``plain``, ``gzip`` or ``zstd``."""
    match how:
        case "gzip":
            return gzip.compress(data, mtime=0)
        case "zstd":
            return zstandard.compress(data)
        case _:
            return data


def gnu(names: Sequence[bytes]) -> bytes:
    """A tar in GNU's own format, whose long names have headers of their own."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as writer:
        for name in names:
            writer.addfile(tarfile.TarInfo(name.decode("utf-8", "surrogateescape")))
    return buffer.getvalue()
