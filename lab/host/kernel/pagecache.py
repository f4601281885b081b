"""What of a file is in the host's page cache, how it gets out of it, and how it gets in.

Everything here is about files that are named. /proc/sys/vm/drop_caches would empty the cache of the whole host, of
which lab's files are a small part, and everybody on it would pay.

The kernel takes advice and promises nothing (posix_fadvise(2)): a page stays while it is dirty, while a process has
it mapped, while it is being read. So whoever evicts is told what stayed, by mincore(2). cachestat(2) is quicker
but sees nothing of a file on overlayfs, whose pages belong to a file of the layer below.

Out of scope: directory entries and inodes, which stay in memory, and what a disk or a hypervisor below keeps.
Sources: posix_fadvise(2), mincore(2), lseek(2) on SEEK_DATA.
"""

from __future__ import annotations

import os
import socket
import stat
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from lab.host import ctypes_shim, syscalls

PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
ATTEMPTS = 8
PAUSE_SECONDS = 0.02  # doubled after each attempt, 2.5 s in all: a read under way has ended by then
FILLS = 3  # what was read first may have had to go for what was read last
PAGES_AT_ONCE = 1 << 16
READ_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    """A regular file, and where its data lie: pairs of a start and a length in bytes, its holes left out.

    To read a hole is to fill the page cache with zeros: that of an empty disk of 8 GiB would take 8 GiB.
    """

    path: str
    size_bytes: int
    data: tuple[tuple[int, int], ...]

    @property
    def data_bytes(self) -> int:
        """In whole pages."""
        return sum(_pages(start, length) for start, length in self.data) * PAGE_BYTES


@dataclass(frozen=True, slots=True, kw_only=True)
class Residence:
    """How much of some files' data is in the page cache, and which files are not as they were wanted."""

    files: int
    data_bytes: int
    resident_bytes: int
    against: tuple[File, ...] = ()

    @property
    def share(self) -> float:
        """Between 0 and 1; 1 for files without data."""
        return self.resident_bytes / self.data_bytes if self.data_bytes else 1.0


def find(places: Iterable[Path]) -> tuple[File, ...]:
    """Every regular file at or below ``places``, each inode once. Symbolic links are not followed."""
    seen: set[tuple[int, int]] = set()
    found = []
    for path, status in (each for place in places for each in _walk(place)):
        if stat.S_ISREG(status.st_mode) and status.st_size and (status.st_dev, status.st_ino) not in seen:
            seen.add((status.st_dev, status.st_ino))
            whole = status.st_blocks * 512 >= status.st_size
            data = ((0, status.st_size),) if whole else _extents(path, status.st_size)
            found.append(File(path=str(path), size_bytes=status.st_size, data=data))
    return tuple(found)


def look(files: Sequence[File]) -> Residence:
    """How much of ``files`` is in the page cache; ``against`` are those of which something is missing."""
    resident = [_resident(file) for file in files]
    missing = [file for file, bytes_ in zip(files, resident, strict=True) if bytes_ < file.data_bytes]
    return _residence(files, sum(resident), missing)


def evict(files: Sequence[File], *, attempts: int = ATTEMPTS) -> Residence:
    """Ask the kernel to drop ``files``, and look what stayed; ``against`` are the files that did, in part at least.

    What is dirty is written first. Other files that share nothing but the disk are left alone. Fewer ``attempts`` are
    enough where something is known to stay.
    """
    left, stayed, pause = list(files), [0], PAUSE_SECONDS
    for attempt in range(attempts):
        if attempt:
            time.sleep(pause)
            pause *= 2
            _free_sent_pages()
        stayed = [_evict(file, write=attempt > 0) for file in left]
        left = [file for file, bytes_ in zip(left, stayed, strict=True) if bytes_]
        if not left:
            break
    return _residence(files, sum(stayed), left)


def fill(files: Sequence[File]) -> Residence:
    """Read what of ``files`` is not in the page cache, and look again; ``against`` are those not all of which is."""
    seen = look(files)
    for _ in range(FILLS):
        if not seen.against:
            break
        _read(seen.against)
        seen = look(files)
    return seen


def _read(files: Sequence[File]) -> None:
    for file in files:  # all at once, so that the disk has a queue to work on
        with _opened(file) as descriptor:
            for start, length in file.data:
                os.posix_fadvise(descriptor, start, length, os.POSIX_FADV_WILLNEED)
    buffer = bytearray(READ_BYTES)
    for file in files:
        with _opened(file) as descriptor:
            for start, length in file.data:
                at = start
                while at < start + length and (count := os.preadv(descriptor, [buffer], at)):
                    at += count


_seen = ctypes_shim.create_string_buffer(b"", PAGES_AT_ONCE)


def _resident(file: File) -> int:
    with _opened(file) as descriptor:
        return _resident_bytes(file, descriptor)


def _resident_bytes(file: File, descriptor: int) -> int:
    """Bytes of its data in the page cache, in whole pages."""
    count = 0
    address = syscalls.mmap(file.size_bytes, descriptor)
    try:
        for start, length in file.data:
            first, pages = start // PAGE_BYTES, _pages(start, length)
            for done in range(0, pages, PAGES_AT_ONCE):
                part = min(PAGES_AT_ONCE, pages - done)
                syscalls.mincore(address + (first + done) * PAGE_BYTES, part * PAGE_BYTES, _seen)
                count += part - bytes(memoryview(_seen)[:part]).count(b"\0")
    finally:
        syscalls.munmap(address, file.size_bytes)
    return count * PAGE_BYTES


def _evict(file: File, *, write: bool) -> int:
    """Drop it; returns the bytes of its data that stayed."""
    with _opened(file) as descriptor:
        if write:  # a barrier on the disk for each clean file too: not before it is needed
            os.fdatasync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        return _resident_bytes(file, descriptor)


def _free_sent_pages() -> None:
    """Let each processor free the socket buffers that are done with, and with them the pages that sendfile(2) sent.

    Since Linux 6.0 a processor that has read the last of a buffer hands it back to the one that made it, which frees
    it when it next receives something (skb_attempt_defer_free in net/core/skbuff.c): on a quiet host, never. So each
    receives a datagram of ours.
    """
    allowed = os.sched_getaffinity(0)
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as own:
            own.bind(("127.0.0.1", 0))
            for processor in allowed:
                os.sched_setaffinity(0, {processor})
                own.sendto(b"", own.getsockname())
    except OSError:  # no loopback here
        return
    finally:
        os.sched_setaffinity(0, allowed)


def _residence(files: Sequence[File], resident_bytes: int, against: Iterable[File]) -> Residence:
    data_bytes = sum(file.data_bytes for file in files)
    return Residence(files=len(files), data_bytes=data_bytes, resident_bytes=resident_bytes, against=tuple(against))


def _pages(start: int, length: int) -> int:
    return -(-(start + length) // PAGE_BYTES) - start // PAGE_BYTES


def _extents(path: Path, size_bytes: int) -> tuple[tuple[int, int], ...]:
    found = []
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        end = 0
        while end < size_bytes:
            try:
                start = os.lseek(descriptor, end, os.SEEK_DATA)
            except OSError:  # ENXIO: nothing but a hole follows
                break
            end = os.lseek(descriptor, start, os.SEEK_HOLE)
            found.append((start, end - start))
    finally:
        os.close(descriptor)
    return tuple(found)


def _walk(place: Path) -> Iterator[tuple[Path, os.stat_result]]:
    status = place.lstat()
    if stat.S_ISDIR(status.st_mode):
        for child in sorted(place.iterdir()):
            yield from _walk(child)
    else:
        yield place, status


@contextmanager
def _opened(file: File) -> Iterator[int]:
    """Without a trace: to note the time of access would make its inode dirty (open(2), O_NOATIME)."""
    descriptor = os.open(file.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOATIME)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
