"""Paths below a container's root while it is put together, and the mounts on them.

What lies below the root comes from an image, so it is hostile until proven otherwise: ``/proc`` may be a link to
``../../etc``, and may become one at any moment. Targets are therefore never paths to the kernel. Each is looked up
once, by openat2(2) with the root as the world's end, and is a descriptor from then on. For what lab itself mounts,
links are refused; and what was mounted is remembered, so that what comes below it, a mask of /proc/kcore, is looked
up in that mount, wherever an image's /proc leads by now.
"""

from __future__ import annotations

import errno
import os

from lab.host import syscalls
from lab.host.syscalls import (
    MOUNT_ATTR_RDONLY,
    O_PATH,
    RESOLVE_IN_ROOT,
    RESOLVE_NO_MAGICLINKS,
    RESOLVE_NO_SYMLINKS,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

MODE_DIRECTORY = 0o755
MOST_LINKS = 40  # as path_resolution(7)


class Root:
    """A container's root while it is put together; nothing resolved through it can leave it."""

    def __init__(self, where: str | int, trees: Sequence[int] = ()) -> None:
        """``where`` is its path, or itself, open. ``trees`` are mounts that the parent has made, for the operations
        that want them.
        """
        self._descriptor = os.open(where, O_PATH | os.O_DIRECTORY | os.O_CLOEXEC) if isinstance(where, str) else where
        self._trees = list(trees)
        self._mounted: dict[str, int] = {}  # by target, on a path without links
        self.scratch = -1  # an empty read-only file system, once a mask has needed it

    def fileno(self) -> int:
        """For fchdir(2)."""
        return self._descriptor

    def open(self, target: str, *, follow: bool = False, flags: int = O_PATH) -> int:
        """``target`` as a descriptor; symbolic links are refused (ELOOP) unless ``follow``."""
        if follow:
            return syscalls.openat2(self._descriptor, target, flags, RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS)
        begin, rest = self._beginning(target)
        resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_SYMLINKS
        return syscalls.openat2(begin, rest or ".", flags, resolve)

    def _beginning(self, target: str) -> tuple[int, str]:
        """The mount that ``target`` is in as far as we know, and the rest of the path."""
        place = "" if ".." in target else target
        while place:
            if place in self._mounted:
                return self._mounted[place], target[len(place) + 1 :]
            place = place.rpartition("/")[0]
        return self._descriptor, target

    def ensure(self, target: str, *, directory: bool, follow: bool = False, links: int = MOST_LINKS) -> int:
        """Like `open`; a missing target and its parents are made first, as a directory or an empty file."""
        try:
            return self.open(target, follow=follow)
        except FileNotFoundError:
            pass
        parent, _, name = target.rstrip("/").rpartition("/")
        above = self.ensure(parent or "/", directory=True, follow=follow)
        try:
            if directory:
                os.mkdir(name, MODE_DIRECTORY, dir_fd=above)
            else:
                os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o644, dir_fd=above))
        except FileExistsError:
            if not follow or links == 0:
                raise
            # A link that leads nowhere yet, as /etc/resolv.conf often is: make what it names, inside the root.
            named = os.readlink(name, dir_fd=above)
            target = named if named.startswith("/") else f"{parent}/{named}"
            return self.ensure(target, directory=directory, follow=True, links=links - 1)
        else:
            return syscalls.openat2(above, name, O_PATH, RESOLVE_IN_ROOT | RESOLVE_NO_SYMLINKS)
        finally:
            os.close(above)

    def attach(self, tree: int, place: int, target: str = "") -> None:
        """Put the mount ``tree`` on the open ``place``, and close that.

        ``target`` is its path, if that has no links and leads to a directory: the mount is then remembered, and
        closed with the root. Without, it is closed here. On / it is the root from now on.
        """
        try:
            syscalls.move_mount(tree, place)
        except BaseException:
            os.close(tree)
            raise
        finally:
            os.close(place)
        if target.strip("/"):
            for hidden in [each for each in self._mounted if each == target or each.startswith(f"{target}/")]:
                os.close(self._mounted.pop(hidden))
            self._mounted[target] = tree
        elif target:
            self.close()
            self._descriptor, self.scratch = tree, -1
        else:
            os.close(tree)

    def next_tree(self) -> int:
        """The next of the parent's mounts, to be put in place and closed."""
        return self._trees.pop(0)

    def close(self) -> None:
        """Let go of it and of all that was mounted."""
        for opened in (self._descriptor, self.scratch, *self._mounted.values()):
            if opened >= 0:
                os.close(opened)
        self._mounted.clear()


def has_links(error: OSError) -> bool:
    """Whether a path was refused because of a symbolic link."""
    return error.errno == errno.ELOOP


def make_directory(path: str) -> None:
    """In the root that this process has entered. A link that leads out of it, to a descriptor of the host's by its
    number, is refused (CVE-2024-21626). Raises OSError.
    """
    inside = Root("/")
    try:
        os.close(inside.ensure(path, directory=True, follow=True))
    finally:
        inside.close()


def make_read_only(path: str) -> None:
    """The mount that ``path`` is the root of, by itself."""
    opened = os.open(path, O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        syscalls.mount_setattr(opened, MOUNT_ATTR_RDONLY, 0)
    finally:
        os.close(opened)
