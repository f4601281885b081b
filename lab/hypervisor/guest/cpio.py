"""Write a cpio archive in the "newc" format that the kernel unpacks as its first root file system.

Source: Documentation/driver-api/early-userspace/buffer-format.rst. Archives may be concatenated: later
entries win, which is how one machine's own files follow the initramfs that all share.
"""

from __future__ import annotations

import stat
from dataclasses import dataclass

TRAILER = "TRAILER!!!"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A file, directory or symbolic link; ``path`` is relative to the root. Parents must come first."""

    path: str
    mode: int  # type and permission bits, as in stat.st_mode
    content: bytes = b""


def directory(path: str) -> Entry:
    """An empty directory, 0755."""
    return Entry(path=path, mode=stat.S_IFDIR | 0o755)


def file(path: str, content: bytes, permissions: int = 0o644) -> Entry:
    """A regular file."""
    return Entry(path=path, mode=stat.S_IFREG | permissions, content=content)


def link(path: str, target: str) -> Entry:
    """A symbolic link to ``target``."""
    return Entry(path=path, mode=stat.S_IFLNK | 0o777, content=target.encode())


def with_parents(entries: list[Entry]) -> list[Entry]:
    """``entries`` preceded by every directory they lie in, each once."""
    known = {entry.path for entry in entries}
    parents: dict[str, Entry] = {}
    for entry in entries:
        parts = entry.path.split("/")[:-1]
        for depth in range(1, len(parts) + 1):
            path = "/".join(parts[:depth])
            if path not in known:
                parents.setdefault(path, directory(path))
    return [*parents.values(), *entries]


def archive(entries: list[Entry]) -> bytes:
    """The archive's bytes, padded to 4 so that another may follow. All is owned by root, dated 1970."""
    chunks = [_record(entry, number) for number, entry in enumerate(entries, start=1)]
    chunks.append(_record(Entry(path=TRAILER, mode=0), 0))
    return b"".join(chunks)


def _record(entry: Entry, inode: int) -> bytes:
    name = entry.path.encode() + b"\0"
    links = 2 if stat.S_ISDIR(entry.mode) else 1
    fields = (inode, entry.mode, 0, 0, links, 0, len(entry.content), 0, 0, 0, 0, len(name), 0)
    header = b"070701" + b"".join(b"%08X" % field for field in fields)
    return _padded(header + name) + _padded(entry.content)


def _padded(content: bytes) -> bytes:
    return content + b"\0" * (-len(content) % 4)
