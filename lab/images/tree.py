"""The merged view of overlayfs lower directories, read without mounting anything.

Implements overlayfs's rules for reading (Documentation/filesystems/overlayfs.rst, "whiteouts and opaque
directories"): the topmost layer that has a name wins; a character device 0/0 hides it; directories merge, until one
of them is opaque. Paths are bytes, relative to the root, without a leading slash; the root is ``b""``.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from lab.host.identity import ownspace

OPAQUE, USERS_OPAQUE = "trusted.overlay.opaque", "user.overlay.opaque"
"""What overlayfs calls the mark, and what it calls it where an ordinary user has mounted it ("User xattr")."""

MAX_SYMLINKS = 40  # the kernel's own limit, path_resolution(7)


@dataclass(frozen=True, slots=True)
class Entry:
    """One path of the merged view: where its bits are, and what lstat(2) says of them."""

    path: bytes
    real: bytes
    status: os.stat_result

    @property
    def is_directory(self) -> bool:
        return stat.S_ISDIR(self.status.st_mode)

    @property
    def is_symlink(self) -> bool:
        return stat.S_ISLNK(self.status.st_mode)

    @property
    def is_file(self) -> bool:
        return stat.S_ISREG(self.status.st_mode)


def is_whiteout(status: os.stat_result) -> bool:
    """A character device 0/0: the name is deleted here."""
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0


def opaque_mark() -> str:
    """The one that this process can set, and that its overlays understand."""
    return USERS_OPAQUE if ownspace.here() else OPAQUE


def is_opaque(directory: bytes) -> bool:
    """Whether the layers below stop contributing to this directory."""
    try:
        return os.getxattr(directory, opaque_mark(), follow_symlinks=False) == b"y"
    except OSError:
        return False


class Tree:
    """Reads the merge of ``directories``, the top one first."""

    def __init__(self, directories: Sequence[Path]) -> None:
        self._roots = [os.fsencode(directory) for directory in directories]

    def lookup(self, path: bytes) -> Entry | None:
        """The entry at exactly ``path``: no symbolic link is followed, not even in the middle."""
        parts = [part for part in path.split(b"/") if part]
        if any(part in (b".", b"..") for part in parts):
            return None
        stack = self._directories(parts[:-1])
        name = parts[-1] if parts else b""
        for directory in stack:
            real = os.path.join(directory, name) if name else directory
            try:
                status = os.lstat(real)
            except (FileNotFoundError, NotADirectoryError):
                continue
            if is_whiteout(status):
                return None
            return Entry(b"/".join(parts), real, status)
        return None

    def resolve(self, path: bytes) -> tuple[bytes, Entry | None]:
        """Follow symbolic links as the kernel would after chroot(2): never out of the tree.

        Returns the final path, and its entry or None when it does not exist. Raises OSError (ELOOP).
        """
        pending = [part for part in path.split(b"/") if part][::-1]
        done: list[bytes] = []
        followed = 0
        while pending:
            part = pending.pop()
            if part == b".":
                continue
            if part == b"..":
                del done[-1:]
                continue
            entry = self.lookup(b"/".join([*done, part]))
            if entry is None or not entry.is_symlink:
                done.append(part)
                continue
            followed += 1
            if followed > MAX_SYMLINKS:
                raise OSError(40, os.strerror(40), os.fsdecode(path))
            target = os.readlink(entry.real)
            if target.startswith(b"/"):
                done.clear()
            pending.extend([piece for piece in target.split(b"/") if piece][::-1])
        final = b"/".join(done)
        return final, self.lookup(final)

    def read(self, path: str, most_bytes: int = -1) -> bytes | None:
        """The content of a regular file, or its first ``most_bytes``, links followed within the tree; None when there
        is none.
        """
        try:
            _, entry = self.resolve(os.fsencode(path))
        except OSError:
            return None
        if entry is None or not entry.is_file:
            return None
        with open(entry.real, "rb") as handle:
            return handle.read(most_bytes)

    def walk(self, below: bytes = b"", enter: Callable[[Entry], bool] = lambda _: True) -> Iterator[Entry]:
        """Every entry from ``below`` on, itself first, a directory before what it holds; names in byte order.

        Nothing is said of what is in a directory that ``enter`` is false for.
        """
        top = self.lookup(below)
        if top is not None:
            yield top
            if top.is_directory:
                yield from self._walk(top.path, self.stack(below), enter)

    def names(self, path: bytes) -> list[bytes]:
        """The names in a directory, sorted; empty when it is none."""
        return sorted(_merge(self.stack(path)))

    def stack(self, path: bytes) -> list[bytes]:
        """The directories that merge at ``path``, the top one first; empty when it is not a directory."""
        return self._directories([part for part in path.split(b"/") if part])

    def _walk(self, path: bytes, stack: Sequence[bytes], enter: Callable[[Entry], bool]) -> Iterator[Entry]:
        for name, found in sorted(_merge(stack).items()):
            top, status = found[0]
            entry = Entry(path + b"/" + name if path else name, top, status)
            yield entry
            if entry.is_directory and enter(entry):
                yield from self._walk(entry.path, [real for real, _ in found], enter)

    def _directories(self, parts: Sequence[bytes]) -> list[bytes]:
        """The directories that merge at ``parts``, the top one first; empty when it is not a directory."""
        stack = self._roots
        for part in parts:
            stack = [real for real, status in _layers_of(stack, part) if stat.S_ISDIR(status.st_mode)]
        return stack


def _layers_of(stack: Sequence[bytes], name: bytes) -> list[tuple[bytes, os.stat_result]]:
    """What merges at ``name``: one non-directory, or directories down to an opaque or hidden one."""
    found: list[tuple[bytes, os.stat_result]] = []
    for directory in stack:
        real = os.path.join(directory, name)
        try:
            status = os.lstat(real)
        except (FileNotFoundError, NotADirectoryError):
            continue
        if is_whiteout(status):
            break
        if not stat.S_ISDIR(status.st_mode):
            if not found:
                found.append((real, status))
            break
        found.append((real, status))
        if is_opaque(real):
            break
    return found


def _merge(stack: Sequence[bytes]) -> dict[bytes, list[tuple[bytes, os.stat_result]]]:
    names = {name for directory in stack for name in os.listdir(directory)}
    merged = {name: _layers_of(stack, name) for name in names}
    return {name: found for name, found in merged.items() if found}
