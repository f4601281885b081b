"""COPY and ADD: from the build context into an overlayfs upper directory, by Docker's rules.

What the image already has is seen through `Tree`, so a destination's symbolic links are followed inside the image
only, and a new layer holds parents exactly as they are below it.
"""

from __future__ import annotations

import fnmatch
import hashlib
import os
import posixpath
import re
import shutil
import stat
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from lab.errors import DockerfileError
from lab.images.extract import keeps_xattr, unpack_archive
from lab.images.ignore import Ignore
from lab.images.tree import Tree


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One file or directory of the context that an instruction names; ``name`` is relative to the context."""

    name: str
    real: Path

    @property
    def is_directory(self) -> bool:
        return self.real.is_dir()


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """Who owns what is copied, and its permissions where the instruction sets them."""

    uid: int = 0
    gid: int = 0
    mode: int | None = None
    given: bool = False  # whether --chown was there: an archive's own owners count otherwise


class Context:
    """The directory an image is built from, without what .dockerignore hides."""

    def __init__(self, directory: Path, ignore: Ignore) -> None:
        self.directory = directory.resolve()
        self.ignore = ignore

    def select(self, pattern: str, *, line: int) -> list[Source]:
        """What ``pattern`` names, sorted. Raises DockerfileError when that is nothing, or outside the context."""
        relative = posixpath.normpath(pattern.lstrip("/") or ".")
        if relative == ".." or relative.startswith("../"):
            raise DockerfileError(
                f"{pattern} is outside the build context {self.directory}", line=line, hint="copy it into the context"
            )
        names = self._glob(relative) if re.search(r"[*?\[]", relative) else [relative]
        sources = [self._source(name, line) for name in names if name == "." or not self._hidden(name)]
        found = [source for source in sources if source.real.exists()]
        if not found:
            hidden = any(self.ignore.ignores(name) for name in names)
            raise DockerfileError(
                f"there is no {pattern} in the build context {self.directory}",
                line=line,
                hint=".dockerignore hides it"
                if hidden
                else "paths are relative to the context, not to the Dockerfile",
            )
        return found

    def walk(self, source: Source) -> Iterator[tuple[str, Path]]:
        """Everything below a directory that is not ignored, as (path relative to it, path); parents first, sorted."""
        pending = [""]
        while pending:
            here = pending.pop()
            below = []
            for real in sorted((source.real / here).iterdir()):
                path = posixpath.join(here, real.name)
                name = posixpath.normpath(posixpath.join(source.name, path))
                is_directory = real.is_dir() and not real.is_symlink()
                ignored = self.ignore.ignores(name)
                if is_directory and (not ignored or self.ignore.takes_back):
                    below.append(path)
                if not ignored:
                    yield path, real
            pending.extend(reversed(below))

    def _hidden(self, name: str) -> bool:
        return self.ignore.ignores(name) and not (self.ignore.takes_back and (self.directory / name).is_dir())

    def _source(self, name: str, line: int) -> Source:
        real = (self.directory / name).resolve()
        if not real.is_relative_to(self.directory):
            raise DockerfileError(
                f"{name} is a link that leads out of the build context", line=line, hint="copy it into the context"
            )
        return Source(name=name, real=real)

    def _glob(self, pattern: str) -> list[str]:
        """Names that match part by part; a ``*`` does not cross a slash (Go's filepath.Match)."""
        found = [""]
        for part in pattern.split("/"):
            found = [
                posixpath.join(parent, entry)
                for parent in found
                for entry in sorted(_names(self.directory / parent))
                if fnmatch.fnmatchcase(entry, part)
            ]
        return found


def digest(context: Context, sources: Sequence[Source]) -> str:
    """What the cache key needs to know of the content: paths, types, modes, bytes; no times, no owners."""
    state = hashlib.sha256()
    for source in sources:
        inner = list(context.walk(source)) if source.is_directory else [("", source.real)]
        for path, real in [(".", source.real), *inner]:
            status = real.lstat()
            if stat.S_ISLNK(status.st_mode):
                content = os.fsencode(real.readlink())
            elif stat.S_ISREG(status.st_mode):
                with real.open("rb") as handle:
                    content = hashlib.file_digest(handle, "sha256").digest()
            else:
                content = b""
            name = source.name if not source.is_directory else ""
            for piece in (os.fsencode(name), os.fsencode(path), b"%o" % status.st_mode, content):
                state.update(len(piece).to_bytes(8, "big") + piece)
    return state.hexdigest()


class Upper:
    """A new layer in the making: an overlayfs upper directory over the image so far."""

    def __init__(self, directory: Path, lower: Sequence[Path]) -> None:
        self.directory = directory
        directory.mkdir(mode=0o755)
        root = Tree(lower).lookup(b"")
        self._tree = Tree((directory, *lower))
        if root is not None:
            os.chown(directory, root.status.st_uid, root.status.st_gid)
            directory.chmod(stat.S_IMODE(root.status.st_mode))

    def is_directory(self, path: str) -> bool:
        """Whether the image has a directory at ``path``, links followed."""
        entry = self._tree.resolve(os.fsencode(path))[1]
        return entry is not None and entry.is_directory

    def make_directory(self, path: str, owner: Owner) -> Path:
        """Make ``path`` and what is missing above it, mode 0755; existing parents keep what they are.

        Raises NotADirectoryError when something else is in the way.
        """
        final, _ = self._tree.resolve(os.fsencode(path))
        parts = final.split(b"/") if final else []
        real = os.fsencode(self.directory)
        for count in range(1, len(parts) + 1):
            real = os.path.join(os.fsencode(self.directory), *parts[:count])
            entry = self._tree.lookup(b"/".join(parts[:count]))
            if entry is None:
                os.mkdir(real, 0o755)
                os.chown(real, owner.uid, owner.gid)
                os.chmod(real, 0o755)
            elif not entry.is_directory:
                raise NotADirectoryError(os.fsdecode(b"/" + entry.path))
            elif entry.real != real:
                os.mkdir(real)
                _copy_metadata(entry.real, entry.status, real)
        return Path(os.fsdecode(real))

    def put(self, source: Path, path: str, owner: Owner, *, preserve: bool = False, follow: bool = False) -> None:
        """Copy one file, link or directory (without what is in it) to ``path``, replacing a non-directory.

        ``preserve`` keeps owner and attributes. ``follow`` writes through a link at ``path`` itself.
        Raises IsADirectoryError or NotADirectoryError when the two can't replace each other.
        """
        status = source.lstat()
        if follow:
            path = "/" + os.fsdecode(self._tree.resolve(os.fsencode(path))[0])
        if stat.S_ISDIR(status.st_mode):
            target = self.make_directory(path, owner)
        else:
            target = self.make_directory(posixpath.dirname(path), owner) / posixpath.basename(path)
            inner = os.path.relpath(target, self.directory)
            entry = self._tree.lookup(os.fsencode(inner))
            if entry is not None and entry.is_directory:
                raise IsADirectoryError(path)
            target.unlink(missing_ok=True)
            _copy_content(source, status, target)
        if preserve:
            _copy_metadata(os.fsencode(source), status, os.fsencode(target))
        if not preserve or owner.given:
            os.chown(target, owner.uid, owner.gid, follow_symlinks=False)
        if not stat.S_ISLNK(status.st_mode):
            target.chmod(stat.S_IMODE(status.st_mode) if owner.mode is None else owner.mode)
        if preserve:
            os.utime(target, ns=(status.st_mtime_ns, status.st_mtime_ns), follow_symlinks=False)


def copy_source(context: Context, source: Source, upper: Upper, destination: str, owner: Owner) -> None:
    """COPY of one source: a directory's content into ``destination``, a file into or as it."""
    if not source.is_directory:
        if destination.endswith("/") or upper.is_directory(destination):
            destination = posixpath.join(destination, posixpath.basename(source.name))
        upper.put(source.real, destination, owner, follow=True)
        return
    upper.make_directory(destination, owner)
    for path, real in context.walk(source):
        upper.put(real, posixpath.join(destination, path), owner)


def is_archive(source: Source) -> bool:
    """Whether ADD unpacks it: a tar, plain or compressed, told by its content and not by its name."""
    return source.real.is_file() and source.real.stat().st_size > 0 and tarfile.is_tarfile(source.real)


def add_archive(source: Source, upper: Upper, destination: str, owner: Owner, scratch: Path) -> None:
    """ADD of a local archive: unpack it beside, safely, then copy the result with its owners and times."""
    stage = scratch / "archive"
    with source.real.open("rb") as archive:
        unpack_archive(archive, stage, whiteouts=False)
    upper.make_directory(destination, owner)
    everything = Context(stage, Ignore())
    for path, real in everything.walk(Source(name=".", real=stage)):
        upper.put(real, posixpath.join(destination, path), owner, preserve=True)
    shutil.rmtree(stage)


def _names(directory: Path) -> list[str]:
    return os.listdir(directory) if directory.is_dir() else []


def _copy_content(source: Path, status: os.stat_result, target: Path) -> None:
    if stat.S_ISREG(status.st_mode):
        shutil.copyfile(source, target, follow_symlinks=False)
    elif stat.S_ISLNK(status.st_mode):
        target.symlink_to(source.readlink())
    elif stat.S_ISSOCK(status.st_mode):
        raise OSError(f"{source} is a socket")
    else:
        os.mknod(target, status.st_mode, status.st_rdev)


def _copy_metadata(source: bytes, status: os.stat_result, target: bytes) -> None:
    """Owner first: chown(2) clears set-uid and file capabilities."""
    os.chown(target, status.st_uid, status.st_gid, follow_symlinks=False)
    if not stat.S_ISLNK(status.st_mode):
        os.chmod(target, stat.S_IMODE(status.st_mode))
    for name in filter(keeps_xattr, os.listxattr(source, follow_symlinks=False)):
        os.setxattr(target, name, os.getxattr(source, name, follow_symlinks=False), follow_symlinks=False)
