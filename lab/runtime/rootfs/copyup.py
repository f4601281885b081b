"""Copy a directory's tree into another, by descriptors: what the mount option tmpcopyup asks for.

Modes, owners, times, links, nodes and extended attributes are kept. Both trees are the container's, so nothing is
opened by a path that could lead out of them. What is mounted below the one is left out: /proc has no end.
"""

from __future__ import annotations

import os
import stat

from lab.shims import suppress

BLOCK_BYTES = 1 << 20


def copy(source: int, target: int) -> None:
    """Everything in the directory open as ``source`` into the one open as ``target``, and its own metadata."""
    device = os.fstat(source).st_dev
    for name in os.listdir(source):
        _copy_entry(name, source, target, device)
    _copy_metadata(source, target)


def _copy_entry(name: str, source: int, target: int, device: int) -> None:
    found = os.stat(name, dir_fd=source, follow_symlinks=False)
    if stat.S_ISLNK(found.st_mode):
        os.symlink(os.readlink(name, dir_fd=source), name, dir_fd=target)
        os.chown(name, found.st_uid, found.st_gid, dir_fd=target, follow_symlinks=False)
    elif stat.S_ISDIR(found.st_mode):
        os.mkdir(name, 0o700 if found.st_dev == device else 0o755, dir_fd=target)
        if found.st_dev == device:
            _with_both(name, source, target, os.O_RDONLY | os.O_DIRECTORY, os.O_RDONLY | os.O_DIRECTORY, copy)
    elif stat.S_ISREG(found.st_mode):
        _with_both(name, source, target, os.O_RDONLY, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _copy_file)
    else:
        os.mknod(name, found.st_mode, found.st_rdev, dir_fd=target)
        os.chown(name, found.st_uid, found.st_gid, dir_fd=target, follow_symlinks=False)


def _with_both(name: str, source: int, target: int, reading: int, writing: int, function: object) -> None:
    """Call ``function`` with ``name`` open in both directories."""
    assert callable(function)
    own = os.O_NOFOLLOW | os.O_CLOEXEC
    below = os.open(name, reading | own, dir_fd=source)
    try:
        above = os.open(name, writing | own, 0o600, dir_fd=target)
        try:
            function(below, above)
        finally:
            os.close(above)
    finally:
        os.close(below)


def _copy_file(source: int, target: int) -> None:
    while os.sendfile(target, source, None, BLOCK_BYTES):  # from where it stands
        pass
    _copy_metadata(source, target)


def _copy_metadata(source: int, target: int) -> None:
    """The owner goes first: a change of it clears the set-user-id bit."""
    found = os.fstat(source)
    os.fchown(target, found.st_uid, found.st_gid)
    os.fchmod(target, stat.S_IMODE(found.st_mode))
    for name in os.listxattr(source):
        with suppress(OSError):  # EOPNOTSUPP: a tmpfs keeps those of users since Linux 6.6
            os.setxattr(target, name, os.getxattr(source, name))
    os.utime(target, ns=(found.st_atime_ns, found.st_mtime_ns))
