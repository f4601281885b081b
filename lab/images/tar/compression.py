"""What a blob holds once decompressed: told by its first bytes, bounded, hashed, and read ahead in a thread.

Decompressing and hashing leave Python's lock alone, so that they run beside whoever consumes the result.
"""

from __future__ import annotations

import bz2
import hashlib
import lzma
import queue
import threading
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO, Protocol, cast

import zstandard

from lab.errors import ImageError
from lab.images.tar.bounds import Bounds

CHUNK_BYTES = 1 << 20
AHEAD = 6  # chunks
MOST_WINDOW_BYTES = 128 << 20  # what zstd(1) itself accepts unless told otherwise
GZIP, ZSTD, BZIP2, XZ = b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"BZh", b"\xfd7zXZ\x00"
BROKEN = (zlib.error, zstandard.ZstdError, lzma.LZMAError, EOFError)


class Reader(Protocol):
    """What is read from: a file, or one of the streams here."""

    def read(self, size: int = -1, /) -> bytes: ...


class _Gunzip:
    """Streams any number of concatenated gzip members."""

    def __init__(self, source: Reader) -> None:
        self._source = source
        self._state = zlib.decompressobj(wbits=31)
        self._pending = b""

    def read(self, size: int = -1, /) -> bytes:
        while True:
            if self._state.eof:
                rest = self._state.unused_data or self._source.read(CHUNK_BYTES)
                if not rest.strip(b"\0"):
                    return b""
                self._state, self._pending = zlib.decompressobj(wbits=31), rest
            data = self._pending or self._source.read(CHUNK_BYTES)
            if not data:
                raise EOFError("it ends too early")
            out = self._state.decompress(data, max(size, 0))
            self._pending = self._state.unconsumed_tail
            if out:
                return out


class _Counted:
    """Counts what is read of a blob."""

    def __init__(self, source: Reader) -> None:
        self._source = source
        self.size_bytes = 0

    def read(self, size: int = -1, /) -> bytes:
        data = self._source.read(size)
        self.size_bytes += len(data)
        return data


def seekable(source: IO[bytes], scratch: Path) -> IO[bytes]:
    """``source``, or what a pipe held: it can't be looked into and then read from its beginning."""
    if source.seekable():
        return source
    spool = (scratch / "spool").open("w+b")
    while chunk := source.read(CHUNK_BYTES):
        spool.write(chunk)
    spool.seek(0)
    return spool


def decompressed(blob: IO[bytes]) -> Reader:
    """A stream of what a plain, gzip, zstd, bzip2 or xz ``blob`` holds."""
    return _decompressed(blob, blob)


def _decompressed(blob: IO[bytes], source: Reader) -> Reader:
    magic = blob.read(6)
    blob.seek(0)
    if magic.startswith(GZIP):
        return _Gunzip(source)
    if magic.startswith(ZSTD):
        # A cut frame ends like a whole one here; the layer's digest tells.
        decompressor = zstandard.ZstdDecompressor(max_window_size=MOST_WINDOW_BYTES)
        return decompressor.stream_reader(cast(IO[bytes], source), read_across_frames=True, closefd=False)
    if magic.startswith(BZIP2):
        return bz2.BZ2File(blob)
    if magic.startswith(XZ):
        return lzma.LZMAFile(blob)
    return source


class Ahead:
    """The decompressed content in chunks, made by a thread of its own. A context manager.

    `read` returns the next chunk, ``b""`` at the end. Raises ImageError for what is broken or out of ``bounds``.
    """

    def __init__(self, blob: IO[bytes], bounds: Bounds) -> None:
        self._blob = blob
        self._bounds = bounds
        self._hash = hashlib.sha256()
        self._chunks: queue.Queue[bytes | BaseException] = queue.Queue(AHEAD)
        self._abandoned = False
        self._thread = threading.Thread(target=self._work, name="lab-decompress", daemon=True)
        self._thread.start()

    def read(self) -> bytes:
        found = self._chunks.get()
        if isinstance(found, bytes) and found:
            return found
        self._chunks.put(found)  # the end stays the end
        if isinstance(found, ImageError):
            raise found
        if isinstance(found, BROKEN):
            raise ImageError(f"not a readable archive: {found}", hint="build or fetch it again") from found
        if isinstance(found, BaseException):
            raise found
        return b""

    def digest(self) -> str:
        """Of all the content, whether it was read or not."""
        while self.read():
            pass
        return f"sha256:{self._hash.hexdigest()}"

    def _work(self) -> None:
        try:
            for chunk in self._content():
                self._chunks.put(chunk)
                if self._abandoned:
                    return
            self._chunks.put(b"")
        except BaseException as error:  # for the reader, who is in another thread
            self._chunks.put(error)

    def _content(self) -> Iterator[bytes]:
        counted = _Counted(self._blob)
        reader = _decompressed(self._blob, counted)
        total = 0
        while chunk := reader.read(CHUNK_BYTES):
            total += len(chunk)
            packed = counted.size_bytes or self._blob.tell()  # bzip2 and xz read the blob themselves
            self._bounds.check_ratio(packed, total)
            self._hash.update(chunk)
            yield chunk

    def __enter__(self) -> Ahead:
        return self

    def __exit__(self, *_: object) -> None:
        self._abandoned = True
        with suppress(queue.Empty):
            while True:
                self._chunks.get_nowait()
        self._thread.join()
