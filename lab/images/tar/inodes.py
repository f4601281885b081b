"""One file as an archive tells it: its bytes, with holes for zeros, and its owner, mode, attributes and times."""

from __future__ import annotations

import os
from collections.abc import Iterator

from lab.host.identity import ownspace
from lab.images.tar import tarstream
from lab.images.tar.tarstream import Member

HOLE_BYTES = 64 << 10  # zeros as long as this become a hole
ZEROS = bytes(HOLE_BYTES)


def write(file: int, data: memoryview) -> None:
    """All of ``data``: write(2) may take less."""
    written = os.write(file, data)
    while written < len(data):
        written += os.write(file, data[written:])


def write_with_holes(file: int, pieces: Iterator[memoryview], member: Member) -> None:
    """Data at its offsets, and nothing where it is zeros."""
    extents = iter(member.extents if member.extents is not None else [(0, member.size_bytes)])
    at = left = 0
    for piece in pieces:
        while piece:
            while not left:
                at, left = next(extents)
            step = piece[: min(left, HOLE_BYTES - at % HOLE_BYTES)]
            if len(step) < HOLE_BYTES or step != ZEROS:
                os.lseek(file, at, os.SEEK_SET)
                write(file, step)
            at, left, piece = at + len(step), left - len(step), piece[len(step) :]
    os.ftruncate(file, member.size_bytes)


def has_owners() -> bool:
    """Whether files can be given to others. In the namespace of a user without subordinate ids all are root's."""
    return not ownspace.keeps_groups()


def set_metadata(file: int, member: Member) -> None:
    """Owner first: chown(2) clears set-uid and file capabilities."""
    if (member.uid or member.gid) and has_owners():
        os.fchown(file, member.uid, member.gid)
    os.fchmod(file, member.mode)
    for key, value in member.xattrs.items():
        os.setxattr(file, key, value)
    os.utime(file, ns=(member.mtime_ns, member.mtime_ns))


def set_metadata_by_name(directory: int, name: bytes, member: Member) -> None:
    """For what can't be opened: a link, a device or a FIFO that this process has just made."""
    if has_owners():
        os.chown(name, member.uid, member.gid, dir_fd=directory, follow_symlinks=False)
    if member.kind != tarstream.SYMLINK:
        os.chmod(name, member.mode, dir_fd=directory)
    for key, value in member.xattrs.items():
        if not key.startswith(b"user."):  # xattr(7): users' are for files alone
            # no setxattrat before Linux 6.13: /proc/self/fd names the directory, whatever its path means now
            target = b"/proc/self/fd/%d/%b" % (directory, name)
            os.setxattr(target, key, value, follow_symlinks=False)
    os.utime(name, ns=(member.mtime_ns, member.mtime_ns), dir_fd=directory, follow_symlinks=False)
