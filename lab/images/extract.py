"""Unpacking archives that nobody vouches for.

Every path is walked component by component from a descriptor of the target directory, with O_NOFOLLOW: an entry
can't leave the target through ``..``, an absolute name, a symbolic link of its own archive or a hard link's target.
Such an entry is an error, not a warning: an honest archive has none.
"""

from __future__ import annotations

import os
import shutil
import stat
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from lab.errors import ImageError
from lab.images.tree import OPAQUE

WHITEOUT = b".wh."
OPAQUE_MARKER = b".wh..wh..opq"
XATTR_RECORD = "SCHILY.xattr."
KEPT_XATTRS = ("security.capability", "system.posix_acl_access", "system.posix_acl_default")
CHUNK_BYTES = 1 << 20
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def keeps_xattr(name: str) -> bool:
    """What an image may carry; overlayfs's own attributes (trusted.*, user.overlay.*) would forge its structure."""
    return name in KEPT_XATTRS or (name.startswith("user.") and not name.startswith("user.overlay."))


def components(name: bytes) -> list[bytes]:
    """An archive member's path, split. Raises ImageError when it climbs."""
    parts = [part for part in name.split(b"/") if part not in (b"", b".")]
    if b".." in parts or b"\0" in name:
        raise ImageError(
            f"an archive holds the path {os.fsdecode(name)!r}, which leads out of it", hint="don't use it"
        )
    return parts


class Extractor:
    """Unpacks members into ``target``, a new directory. With ``whiteouts``, OCI's markers become overlayfs's."""

    def __init__(self, target: Path, *, whiteouts: bool) -> None:
        target.mkdir(mode=0o755)
        self._root = os.open(target, _DIRECTORY)
        self._whiteouts = whiteouts
        self._times: dict[bytes, float] = {}  # directories' times are set last: filling them changes them

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._set_directory_times()
        finally:
            os.close(self._root)

    def extract(self, archive: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        """Unpack one member. Raises ImageError for a hostile one, or when this process may not create it."""
        parts = components(os.fsencode(member.name))
        try:
            if not parts:
                if member.isdir():
                    self._set_metadata(self._root, b".", member)
                    self._times[b""] = member.mtime
                return
            with self._parent(parts) as directory:
                self._create(archive, member, directory, parts)
        except PermissionError as error:
            raise ImageError(
                f"can't unpack {member.name!r}: {error.strerror}", hint="unpacking images needs root"
            ) from error
        except OSError as error:
            raise ImageError(f"can't unpack {member.name!r}: {error.strerror}", hint=_remedy(error)) from error

    @contextmanager
    def _parent(self, parts: list[bytes]) -> Iterator[int]:
        """A descriptor of the directory that holds the entry; missing directories are made."""
        current = os.dup(self._root)
        try:
            for part in parts[:-1]:
                try:
                    below = os.open(part, _DIRECTORY, dir_fd=current)
                except FileNotFoundError:
                    os.mkdir(part, 0o755, dir_fd=current)
                    below = os.open(part, _DIRECTORY, dir_fd=current)
                os.close(current)
                current = below
            yield current
        except NotADirectoryError as error:  # ELOOP is what O_NOFOLLOW says without O_DIRECTORY
            path = os.fsdecode(b"/".join(parts))
            raise ImageError(
                f"an archive's path {path!r} passes through a link or file", hint="don't use it"
            ) from error
        finally:
            os.close(current)

    def _create(self, archive: tarfile.TarFile, member: tarfile.TarInfo, directory: int, parts: list[bytes]) -> None:
        name = parts[-1]
        if self._whiteouts and name.startswith(WHITEOUT):
            self._hide(directory, name)
            return
        if member.isdir():
            self._make_directory(directory, name)
            self._times[b"/".join(parts)] = member.mtime
        else:
            _remove(directory, name)
            if member.islnk():
                self._link(member, directory, name)
                return
            self._make(archive, member, directory, name)
        self._set_metadata(directory, name, member)

    def _make(self, archive: tarfile.TarFile, member: tarfile.TarInfo, directory: int, name: bytes) -> None:
        if member.isreg():
            source = archive.extractfile(member)
            assert source is not None
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            with os.fdopen(os.open(name, flags, 0o600, dir_fd=directory), "wb") as writer:
                shutil.copyfileobj(source, writer, CHUNK_BYTES)
        elif member.issym():
            os.symlink(os.fsencode(member.linkname), name, dir_fd=directory)
        elif member.isfifo():
            os.mkfifo(name, 0o600, dir_fd=directory)
        elif member.ischr() or member.isblk():
            kind = stat.S_IFCHR if member.ischr() else stat.S_IFBLK
            os.mknod(name, kind | 0o600, os.makedev(member.devmajor, member.devminor), dir_fd=directory)
        else:
            raise ImageError(
                f"an archive holds {member.name!r} of the unknown type {member.type!r}", hint="don't use it"
            )

    def _link(self, member: tarfile.TarInfo, directory: int, name: bytes) -> None:
        parts = components(os.fsencode(member.linkname))
        if not parts:
            raise ImageError(f"an archive's hard link {member.name!r} has no target", hint="don't use it")
        with self._parent(parts) as source:
            os.link(parts[-1], name, src_dir_fd=source, dst_dir_fd=directory, follow_symlinks=False)

    def _hide(self, directory: int, name: bytes) -> None:
        if name == OPAQUE_MARKER:
            os.setxattr(directory, OPAQUE, b"y")
            return
        if name.startswith(WHITEOUT + WHITEOUT):
            return  # aufs's own bookkeeping, which the specification lets one ignore
        hidden = name.removeprefix(WHITEOUT)
        if hidden in (b"", b".", b".."):
            raise ImageError(f"an archive holds the whiteout {os.fsdecode(name)!r}", hint="don't use it")
        _remove(directory, hidden)
        os.mknod(hidden, stat.S_IFCHR, os.makedev(0, 0), dir_fd=directory)

    def _make_directory(self, directory: int, name: bytes) -> None:
        try:
            if stat.S_ISDIR(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode):
                return
            _remove(directory, name)
        except FileNotFoundError:
            pass
        os.mkdir(name, 0o755, dir_fd=directory)

    def _set_metadata(self, directory: int, name: bytes, member: tarfile.TarInfo) -> None:
        """Owner first: chown(2) clears set-uid and file capabilities."""
        os.chown(name, member.uid, member.gid, dir_fd=directory, follow_symlinks=False)
        if not member.issym():
            os.chmod(name, member.mode & 0o7777, dir_fd=directory)
        for key, value in member.pax_headers.items():
            attribute = key.removeprefix(XATTR_RECORD)
            if attribute != key and keeps_xattr(attribute):
                # no fsetxattrat: /proc/self/fd names the directory that was walked to, whatever its path means now
                target = os.path.join(b"/proc/self/fd/%d" % directory, name)
                os.setxattr(target, attribute, value.encode("utf-8", "surrogateescape"), follow_symlinks=False)
        if not member.isdir():
            os.utime(name, (member.mtime, member.mtime), dir_fd=directory, follow_symlinks=False)

    def _set_directory_times(self) -> None:
        for path, mtime in self._times.items():
            parts = path.split(b"/") if path else [b"."]
            with self._parent(parts) as directory:
                try:
                    if stat.S_ISDIR(os.stat(parts[-1], dir_fd=directory, follow_symlinks=False).st_mode):
                        os.utime(parts[-1], (mtime, mtime), dir_fd=directory, follow_symlinks=False)
                except FileNotFoundError:
                    pass  # a later entry of the archive replaced it


def _remove(directory: int, name: bytes) -> None:
    """Make room for an entry; a later one of the same name replaces an earlier one."""
    try:
        status = os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return
    if stat.S_ISDIR(status.st_mode):
        shutil.rmtree(name, dir_fd=directory)
    else:
        os.unlink(name, dir_fd=directory)


def _remedy(error: OSError) -> str:
    return "free some disk space, or set LAB_HOME to a larger disk" if error.errno == 28 else "the archive is broken"
