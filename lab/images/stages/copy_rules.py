"""COPY and ADD: into an overlayfs upper directory, by Docker's rules.

What the image already has is seen through `Tree`, so a destination's symbolic links are followed inside the image
only, and a new layer holds parents exactly as they are below it.
"""

from __future__ import annotations

import os
import posixpath
import shutil
import stat
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from lab.errors import ImageError
from lab.images.dockerfile.flags import ChangeMode
from lab.images.stages.copy_sources import CopySource, Piece, Selection, Wanted, xattrs
from lab.images.tar.compression import decompressed
from lab.images.tar.extract import unpack_archive
from lab.images.tree import Tree

TAR_BLOCK_BYTES = 512
TAR_MAGIC = slice(257, 262)
TAR_CHECKSUM = slice(148, 156)


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """Who owns what is copied, and how its permissions change.

    ``who`` None keeps each file's own; what is made on the way is root's then.
    """

    who: tuple[int, int] | None = (0, 0)
    mode: ChangeMode | None = None
    keep_times: bool = False

    @property
    def of_parents(self) -> tuple[int, int]:
        """Who owns directories that are made on the way."""
        return self.who or (0, 0)


class Upper:
    """A new layer in the making: an overlayfs upper directory over the image so far."""

    def __init__(self, directory: Path, lower: Sequence[Path]) -> None:
        self.directory = directory
        directory.mkdir(mode=0o755)
        directory.chmod(0o755)  # whatever the umask is
        root = Tree(lower).lookup(b"")
        self._tree = Tree((directory, *lower))
        self._linked: dict[tuple[int, int], bytes] = {}  # where a file with several names was copied to
        if root is not None:
            os.chown(directory, root.status.st_uid, root.status.st_gid)
            directory.chmod(stat.S_IMODE(root.status.st_mode))

    def begin_source(self) -> None:
        """What follows is of another source: no name of it is linked to a file of one before."""
        self._linked.clear()

    def is_directory(self, path: str) -> bool:
        """Whether the image has a directory at ``path``, links followed."""
        entry = self._tree.resolve(os.fsencode(path))[1]
        return entry is not None and entry.is_directory

    def make_directory(self, path: str, who: tuple[int, int] = (0, 0)) -> bytes:
        """Make ``path`` and what is missing above it, mode 0755; existing parents keep what they are.

        Raises NotADirectoryError when something else is in the way.
        """
        final, _ = self._tree.resolve(os.fsencode(path))
        parts = final.split(b"/") if final else []
        root = os.fsencode(self.directory)
        real = root
        for count in range(1, len(parts) + 1):
            real = os.path.join(root, *parts[:count])
            entry = self._tree.lookup(b"/".join(parts[:count]))
            if entry is None:
                os.mkdir(real, 0o755)
                os.chown(real, *who)
                os.chmod(real, 0o755)
            elif not entry.is_directory:
                raise NotADirectoryError(os.fsdecode(b"/" + entry.path))
            elif entry.real != real:
                os.mkdir(real)
                _copy_attributes(entry.real, entry.status, real)
        return real

    def put(self, piece: Piece, path: str, owner: Owner, *, follow: bool = False) -> None:
        """Copy one file, link or directory (without what is in it) to ``path``, replacing a non-directory.

        ``follow`` writes through a link at ``path`` itself. Raises IsADirectoryError or NotADirectoryError when the
        two can't replace each other.
        """
        status = piece.status
        if follow:
            path = "/" + os.fsdecode(self._tree.resolve(os.fsencode(path))[0])
        if stat.S_ISDIR(status.st_mode):
            target = self.make_directory(path, owner.of_parents)
        else:
            parent = self.make_directory(posixpath.dirname(path), owner.of_parents)
            target = os.path.join(parent, os.fsencode(posixpath.basename(path)))
            entry = self._tree.lookup(os.path.relpath(target, os.fsencode(self.directory)))
            if entry is not None and entry.is_directory:
                raise IsADirectoryError(path)
            with suppress(FileNotFoundError):
                os.unlink(target)
                self._linked = {source: place for source, place in self._linked.items() if place != target}
            if self._link_again(piece, target):
                return
            _copy_content(piece.real, status, target)
            if stat.S_ISREG(status.st_mode) and status.st_nlink > 1:
                self._linked[status.st_dev, status.st_ino] = target
        self._finish(piece, target, owner)

    def _link_again(self, piece: Piece, target: bytes) -> bool:
        """A file with several names that was copied under another one already is linked to it."""
        if piece.status.st_nlink < 2 or not stat.S_ISREG(piece.status.st_mode):
            return False
        first = self._linked.get((piece.status.st_dev, piece.status.st_ino), b"")
        if not first or not os.path.lexists(first):
            return False
        os.link(first, target)
        return True

    def _finish(self, piece: Piece, target: bytes, owner: Owner) -> None:
        """Owner, mode, attributes, time. Owner first: chown(2) clears set-uid and file capabilities."""
        status = piece.status
        uid, gid = owner.who or (status.st_uid, status.st_gid)
        os.chown(target, uid, gid, follow_symlinks=False)
        if not stat.S_ISLNK(status.st_mode):
            mode = stat.S_IMODE(status.st_mode)
            os.chmod(target, owner.mode(mode, stat.S_ISDIR(status.st_mode)) if owner.mode else mode)
        for name, value in xattrs(piece.real):
            os.setxattr(target, name, value, follow_symlinks=False)
        if owner.keep_times:
            os.utime(target, ns=(status.st_mtime_ns, status.st_mtime_ns), follow_symlinks=False)


def copy(selection: Selection, upper: Upper, destination: str, owner: Owner) -> None:
    """COPY of one source: a directory's content into ``destination``, a file into or as it."""
    if not selection.is_directory:
        if destination.endswith("/") or upper.is_directory(destination):
            destination = posixpath.join(destination, selection.name)
        for piece in selection.pieces:
            upper.put(piece, destination, owner, follow=True)
        return
    upper.make_directory(destination, owner.of_parents)
    for piece in selection.pieces:
        if piece.target:
            upper.put(piece, posixpath.join(destination, piece.target), owner)


def is_archive(selection: Selection) -> bool:
    """Whether ADD unpacks it: a tar, plain or compressed, told by its content and not by its name."""
    if selection.is_directory or not selection.pieces or not stat.S_ISREG(selection.pieces[0].status.st_mode):
        return False
    try:
        with open(selection.pieces[0].real, "rb") as blob:
            block = decompressed(blob).read(TAR_BLOCK_BYTES)
    except Exception:  # whatever a decompressor says of what only begins like its format
        return False
    if len(block) < TAR_BLOCK_BYTES or not any(block):
        return False
    claimed = block[TAR_CHECKSUM].split(b"\0")[0].strip()
    total = sum(block) - sum(block[TAR_CHECKSUM]) + 8 * ord(" ")  # tar(5): summed with blanks in its own place
    return block[TAR_MAGIC] == b"ustar" or (claimed.isdigit() and int(claimed, 8) == total)


def add_archive(selection: Selection, upper: Upper, destination: str, owner: Owner, scratch: Path) -> None:
    """ADD of an archive: unpack it beside, safely, then copy the result with its owners and times."""
    stage = scratch / "archive"
    with open(selection.pieces[0].real, "rb") as blob:
        unpack_archive(blob, stage, whiteouts=False)
    content = CopySource(Tree([stage]), "the archive", owned=True)
    (whole,) = content.select(".", Wanted(line=0))
    upper.make_directory(destination, owner.of_parents)
    for piece in whole.pieces:
        if piece.target:
            upper.put(piece, posixpath.join(destination, piece.target), owner)
    shutil.rmtree(stage)


def _copy_content(source: bytes, status: os.stat_result, target: bytes) -> None:
    if stat.S_ISREG(status.st_mode):
        shutil.copyfile(source, target, follow_symlinks=False)
    elif stat.S_ISLNK(status.st_mode):
        os.symlink(os.readlink(source), target)
    elif stat.S_ISSOCK(status.st_mode):
        raise ImageError(f"{os.fsdecode(source)} is a socket", hint="leave it out with .dockerignore")
    else:
        os.mknod(target, status.st_mode, status.st_rdev)


def _copy_attributes(source: bytes, status: os.stat_result, target: bytes) -> None:
    os.chown(target, status.st_uid, status.st_gid, follow_symlinks=False)
    os.chmod(target, stat.S_IMODE(status.st_mode))
    for name, value in xattrs(source):
        os.setxattr(target, name, value, follow_symlinks=False)
