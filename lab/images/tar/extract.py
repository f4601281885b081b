"""Unpacking archives that nobody vouches for.

Every entry is made below a descriptor of the directory that holds it, which openat2(2) found with RESOLVE_BENEATH:
an entry can't leave the target through ``..``, an absolute link of its own archive or a hard link's target. Such an
entry is an error, not a warning: an honest archive has none. A relative link that stays inside is followed, as
merged /usr needs it.

Directories get owner, mode, attributes and times at the very end: until then nothing is inherited from them, whatever
the archive would have them pass on.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from lab.errors import ImageError
from lab.host.identity import privilege
from lab.host.syscalls import RESOLVE_BENEATH, RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS, openat2
from lab.images.tar import tarstream
from lab.images.tar.bounds import Bounds
from lab.images.tar.compression import Ahead
from lab.images.tar.inodes import HOLE_BYTES, set_metadata, set_metadata_by_name, write, write_with_holes
from lab.images.tar.tarstream import Member, TarStream
from lab.images.tree import is_whiteout, opaque_mark

WHITEOUT = b".wh."
OPAQUE_MARKER = b".wh..wh..opq"
OPEN_DIRECTORIES = 64
MOST_DEPTH = 255  # of directories: what walks a tree later keeps a descriptor or a frame for each
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_BENEATH = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS
_PLAINLY = _BENEATH | RESOLVE_NO_SYMLINKS
_LEADS_OUT = (errno.ENOTDIR, errno.ELOOP, errno.EXDEV)
REFUSED = "don't use it"


def components(name: bytes) -> bytes:
    """An archive member's path, relative and without detours. Raises ImageError when it climbs."""
    path = name.strip(b"/")
    parts = path.split(b"/")
    if b"" in parts or b"." in parts or b".." in parts:
        if b".." in parts:
            raise ImageError(f"an archive holds the path {os.fsdecode(name)!r}, which leads out of it", hint=REFUSED)
        path = b"/".join(part for part in parts if part not in (b"", b"."))
    check_depth(path)
    return path


def check_depth(path: bytes) -> None:
    """Raises ImageError for a path that is deeper than any honest one."""
    if path.count(b"/") > MOST_DEPTH:
        raise ImageError(f"an archive holds a path of more than {MOST_DEPTH} directories", hint=REFUSED)


def unpack_archive(blob: IO[bytes], target: Path, *, whiteouts: bool, bounds: Bounds | None = None) -> str:
    """Unpack a tar, plain or compressed, into the new directory ``target``; the digest of the plain tar.

    With ``whiteouts``, OCI's markers become overlayfs's. Raises ImageError for an archive that is broken, hostile
    or out of ``bounds`` (default: the configured ones); ``target`` then holds what came before.
    """
    limits = bounds or Bounds.configured()
    with Ahead(blob, limits) as content, Extractor(target, whiteouts=whiteouts, bounds=limits) as extractor:
        stream = TarStream(content.read, limits)
        for member in stream:
            extractor.extract(stream, member)
        return content.digest()


class Extractor:
    """Unpacks members into ``target``, a new directory; directories are finished on leaving."""

    def __init__(self, target: Path, *, whiteouts: bool, bounds: Bounds) -> None:
        target.mkdir(mode=0o700)
        self._root = os.open(target, _DIRECTORY)
        self._whiteouts = whiteouts
        self._bounds = bounds
        self._implied = 0
        self._folders: dict[bytes, int] = {}
        self._outlived: list[int] = []
        self._unfinished: dict[bytes, tuple[int, Member]] = {}
        self._removed: dict[bytes, int] = {}
        self._count = 0
        self._disinherit()

    def _disinherit(self) -> None:
        """A set-group-id bit or a default ACL of the place we unpack in must not reach what is unpacked."""
        os.fchmod(self._root, 0o755)
        if privilege.granted(privilege.Need.OWNERS):
            os.fchown(self._root, 0, 0)
        for name in ("system.posix_acl_default", "system.posix_acl_access"):
            try:
                os.removexattr(self._root, name)
            except OSError:
                pass

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._finish_directories()
        finally:
            self._forget()
            os.close(self._root)

    def extract(self, stream: TarStream, member: Member) -> None:
        """Unpack one member. Raises ImageError for a hostile one, or when this process may not create it."""
        path = components(member.name)
        self._count += 1
        try:
            if not path:
                if member.kind == tarstream.DIRECTORY:
                    self._unfinished[b""] = self._count, member
                return
            folder, _, name = path.rpartition(b"/")
            directory = self._folders.get(folder) or self._folder(folder, path)
            if self._whiteouts and name.startswith(WHITEOUT):
                self._hide(directory, folder, name)
            elif member.kind == tarstream.FILE:
                self._make_file(stream, member, directory, path, name)
            elif member.kind == tarstream.DIRECTORY:
                self._make_directory(directory, path, name)
                member.name = path  # kept until the end: once, not twice
                self._unfinished[path] = self._count, member
            else:
                self._make_other(member, directory, path, name)
        except PermissionError as error:
            raise _failure(member, error, privilege.remedy("…")) from error
        except OSError as error:
            raise _failure(member, error, _remedy(error)) from error

    # -- directories -------------------------------------------------------------------------------------------

    def _folder(self, path: bytes, wanted: bytes) -> int:
        """A descriptor of the directory at ``path``; missing ones are made. It stays open for the next entries."""
        if not path:
            return self._root
        found = self._folders.get(path)
        if found is not None:
            return found
        try:
            found = self._open(path, wanted)
        except FileNotFoundError:
            found = self._make_folders(path, wanted)
        if len(self._folders) >= OPEN_DIRECTORIES:
            os.close(self._folders.pop(next(iter(self._folders))))
        self._folders[path] = found
        return found

    def _open(self, path: bytes, wanted: bytes) -> int:
        """The directory at ``path``; through links, as long as these stay inside. Raises FileNotFoundError."""
        try:
            return openat2(self._root, path, os.O_RDONLY | os.O_DIRECTORY, _PLAINLY)
        except FileNotFoundError:
            raise
        except OSError as error:
            if error.errno != errno.ELOOP:
                raise _leads_out(wanted, error) from error
        try:
            found = openat2(self._root, path, os.O_RDONLY | os.O_DIRECTORY, _BENEATH)
        except FileNotFoundError as error:
            raise _leads_out(wanted, NotADirectoryError(errno.ENOTDIR, "a link to nothing")) from error
        except OSError as error:
            raise _leads_out(wanted, error) from error
        try:  # links can make a path of any depth out of short ones
            here, root = (os.readlink(b"/proc/self/fd/%d" % each) for each in (found, self._root))
            check_depth(here.removeprefix(root).strip(b"/") + b"/")
        except BaseException:
            os.close(found)
            raise
        return found

    def _make_folders(self, path: bytes, wanted: bytes) -> int:
        """The directory at ``path``, with what is missing above it."""
        descriptor, end = os.dup(self._root), 0
        try:
            while end < len(path):
                start, end = end, (path.find(b"/", end + 1) + 1 or len(path) + 1) - 1
                try:
                    below = self._open(path[:end], wanted)
                except FileNotFoundError:
                    self._implied += 1
                    self._bounds.check_files(self._implied)
                    name = path[start:end].strip(b"/")
                    os.mkdir(name, 0o755, dir_fd=descriptor)
                    below = os.open(name, _DIRECTORY, dir_fd=descriptor)
                os.close(descriptor)
                descriptor = below
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    def _make_directory(self, directory: int, path: bytes, name: bytes) -> None:
        try:
            os.mkdir(name, 0o755, dir_fd=directory)
        except FileExistsError:
            status = os.stat(name, dir_fd=directory, follow_symlinks=False)
            if stat.S_ISDIR(status.st_mode):
                return
            self._remove(directory, path, name)
            os.mkdir(name, 0o755, dir_fd=directory)
            if self._whiteouts and is_whiteout(status):
                self._make_opaque(directory, name)

    def _finish_directories(self) -> None:
        for path, (made, member) in self._unfinished.items():
            if self._removed and self._is_gone(path, made):
                continue
            try:
                descriptor = self._reopen(path)
            except OSError as error:
                raise _leads_out(path, error) from error
            try:
                set_metadata(descriptor, member)
            except OSError as error:
                raise _failure(member, error, privilege.remedy("…")) from error
            finally:
                os.close(descriptor)

    def _is_gone(self, path: bytes, made: int) -> bool:
        """Whether it, or what it was in, was removed after the entry that ``made`` counts."""
        above = [at for at, byte in enumerate(path) if byte == ord("/")]
        return any(self._removed.get(path[:end], 0) > made for end in (*above, len(path)))

    def _reopen(self, path: bytes) -> int:
        """A directory that an entry made; by now its name may be a link's, which is not followed."""
        folder, _, name = path.rpartition(b"/")
        parent = self._open(folder, path) if folder else os.dup(self._root)
        try:
            return os.open(name or b".", _DIRECTORY, dir_fd=parent)
        finally:
            os.close(parent)

    def _forget(self, used: int = -1) -> None:
        """Close what is open: the same path may mean another directory now. What is still ``used`` closes later."""
        for descriptor in (*self._outlived, *self._folders.values()):
            if descriptor != used:
                os.close(descriptor)
        self._outlived = [used] if used in self._outlived or used in self._folders.values() else []
        self._folders.clear()

    # -- everything else ---------------------------------------------------------------------------------------

    def _make_file(self, stream: TarStream, member: Member, directory: int, path: bytes, name: bytes) -> None:
        try:
            file = os.open(name, _NEW_FILE, 0o600, dir_fd=directory)
        except FileExistsError:
            self._remove(directory, path, name)
            file = os.open(name, _NEW_FILE, 0o600, dir_fd=directory)
        try:
            if member.extents is not None or member.size_bytes >= HOLE_BYTES:
                write_with_holes(file, stream.data(), member)
            else:
                for piece in stream.data():
                    write(file, piece)
            set_metadata(file, member)
        finally:
            os.close(file)

    def _make_other(self, member: Member, directory: int, path: bytes, name: bytes) -> None:
        """A link, a device or a FIFO; in place of what has the name already."""
        try:
            os.stat(name, dir_fd=directory, follow_symlinks=False)
            self._remove(directory, path, name)
        except FileNotFoundError:
            pass
        match member.kind:
            case tarstream.SYMLINK:
                os.symlink(member.link, name, dir_fd=directory)
            case tarstream.HARD_LINK:
                self._link(member, directory, path, name)
                return
            case tarstream.FIFO:
                os.mkfifo(name, 0o600, dir_fd=directory)
            case tarstream.CHARACTER | tarstream.BLOCK_DEVICE:
                self._make_device(member, directory, name)
            case kind:
                raise ImageError(
                    f"an archive holds {os.fsdecode(member.name)!r} of the unknown type {chr(kind)!r}", hint=REFUSED
                )
        set_metadata_by_name(directory, name, member)

    def _make_device(self, member: Member, directory: int, name: bytes) -> None:
        is_character = member.kind == tarstream.CHARACTER
        if is_character and member.device == (0, 0) and self._whiteouts:
            raise ImageError(
                f"an archive holds {os.fsdecode(member.name)!r}, a device that overlayfs takes for a deletion",
                hint=REFUSED,
            )
        kind = stat.S_IFCHR if is_character else stat.S_IFBLK
        os.mknod(name, kind | 0o600, os.makedev(*member.device), dir_fd=directory)

    def _link(self, member: Member, directory: int, path: bytes, name: bytes) -> None:
        target = components(member.link)
        if not target or target == path:
            raise ImageError(
                f"an archive's hard link {os.fsdecode(member.name)!r} leads to nothing else", hint=REFUSED
            )
        folder, _, source = target.rpartition(b"/")
        if self._whiteouts and source.startswith(WHITEOUT):
            raise ImageError(f"an archive links {os.fsdecode(member.name)!r} to a deletion", hint=REFUSED)
        origin = self._open(folder, path) if folder else os.dup(self._root)
        try:
            status = os.stat(source, dir_fd=origin, follow_symlinks=False)
            if self._whiteouts and stat.S_ISCHR(status.st_mode) and status.st_rdev == os.makedev(0, 0):
                raise ImageError(f"an archive links {os.fsdecode(member.name)!r} to what it deletes", hint=REFUSED)
            os.link(source, name, src_dir_fd=origin, dst_dir_fd=directory, follow_symlinks=False)
        finally:
            os.close(origin)

    def _hide(self, directory: int, folder: bytes, name: bytes) -> None:
        if name == OPAQUE_MARKER:
            os.setxattr(directory, opaque_mark(), b"y")
            return
        if name.startswith(WHITEOUT + WHITEOUT):
            return  # aufs's own bookkeeping, which the specification lets one ignore
        hidden = name.removeprefix(WHITEOUT)
        if hidden in (b"", b".", b".."):
            raise ImageError(f"an archive holds the whiteout {os.fsdecode(name)!r}", hint=REFUSED)
        try:
            status = os.stat(hidden, dir_fd=directory, follow_symlinks=False)
        except FileNotFoundError:
            os.mknod(hidden, stat.S_IFCHR, os.makedev(0, 0), dir_fd=directory)
            return
        # The layer has both. A whiteout speaks of the layers below alone: what this one adds stays, by itself.
        if stat.S_ISDIR(status.st_mode):
            self._make_opaque(directory, hidden)

    def _make_opaque(self, directory: int, name: bytes) -> None:
        descriptor = os.open(name, _DIRECTORY, dir_fd=directory)
        try:
            os.setxattr(descriptor, opaque_mark(), b"y")
        finally:
            os.close(descriptor)

    def _remove(self, directory: int, path: bytes, name: bytes) -> None:
        """Make room for an entry; a later one of the same name replaces an earlier one."""
        if not stat.S_ISDIR(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode):
            os.unlink(name, dir_fd=directory)
            return
        self._forget(used=directory)
        self._removed[path] = self._count  # what was in it is looked for once, at the end, and not at every removal
        shutil.rmtree(name, dir_fd=directory)


def _leads_out(path: bytes, error: OSError) -> ImageError:
    if error.errno in _LEADS_OUT:
        return ImageError(
            f"an archive's path {os.fsdecode(path)!r} leads through a file or out of the archive", hint=REFUSED
        )
    return ImageError(f"can't unpack {os.fsdecode(path)!r}: {os.strerror(error.errno or 0)}", hint=_remedy(error))


def _failure(member: Member, error: OSError, hint: str) -> ImageError:
    return ImageError(f"can't unpack {os.fsdecode(member.name)!r}: {os.strerror(error.errno or 0)}", hint=hint)


def _remedy(error: OSError) -> str:
    match error.errno:
        case errno.ENOSPC | errno.EDQUOT:
            return "free some disk space, or set LAB_HOME to a larger disk"
        case errno.EOPNOTSUPP:
            return "set LAB_HOME to a file system with extended attributes"
        case errno.EINVAL if privilege.is_rootless():
            return "its owner is none of your subordinate ids; an administrator can give you more: docs/rootless.md"
    return "the archive is broken"
