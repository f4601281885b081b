"""Who uses what of the store, told by flock(2): the kernel drops a lock with its process, however that ends.

A lab process holds a shared lock on every unpacked layer and every image whose files it has asked for, and on the
store as a whole while it adds blobs that nothing refers to yet. Whoever removes something must first get an
exclusive one.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lab.host.identity import private

LOCKS = Path("/proc/locks")


def hold(path: Path, *, create: bool = False) -> int:
    """A descriptor with a shared lock on what is at ``path`` once the lock is there.

    Raises FileNotFoundError when there is nothing, unless ``create`` makes an empty file of it.
    """
    flags = os.O_RDONLY | os.O_CLOEXEC | (os.O_CREAT if create else 0)
    while True:
        descriptor = os.open(path, flags, private.FILE)
        if create:
            private.tighten(descriptor)
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        if _is_at(descriptor, path):
            return descriptor
        os.close(descriptor)  # whoever held the exclusive lock has removed it


@contextmanager
def claim(path: Path) -> Iterator[bool]:
    """An exclusive lock on what is at ``path``, for as long as the block runs; False when another process holds one.

    Nothing at ``path`` is nobody's: True.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        yield True
        return
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(descriptor)


def holders(path: Path) -> list[int]:
    """The processes that hold a lock on what is at ``path`` (proc_locks(5)); a thread of ours counts as one."""
    try:
        status = path.stat()
        lines = LOCKS.read_text().splitlines()
    except OSError:
        return []
    device = status.st_dev
    wanted = f"{os.major(device):02x}:{os.minor(device):02x}:{status.st_ino}"
    rows = [line.split() for line in lines]
    return sorted({int(row[4]) for row in rows if len(row) > 5 and row[1] == "FLOCK" and row[5] == wanted})


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False
