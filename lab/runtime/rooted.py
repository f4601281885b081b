"""Paths below a container's root while it is put together, and the mounts on them.

What lies below the root comes from an image, so it is hostile until proven otherwise: ``/proc`` may be a link to
``../../etc``. Targets are therefore never paths to the kernel. They are opened by openat2(2) with the root as the
world's end, and mounted on by descriptor. For what lab itself mounts, links are refused.
"""

from __future__ import annotations

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
UNTOUCHED = (0, 0)  # attributes to set, and to clear


class Root:
    """A container's root while it is put together; nothing resolved through it can leave it."""

    def __init__(self, where: str | int, trees: Sequence[int] = ()) -> None:
        """``where`` is its path, or itself, open. ``trees`` are mounts that the parent has made, for the operations
        that want them.
        """
        self._descriptor = os.open(where, O_PATH | os.O_DIRECTORY | os.O_CLOEXEC) if isinstance(where, str) else where
        self._trees = list(trees)

    def fileno(self) -> int:
        """For fchdir(2)."""
        return self._descriptor

    def open(self, target: str, *, follow: bool = False, flags: int = O_PATH) -> int:
        """``target`` as a descriptor; symbolic links are refused (ELOOP) unless ``follow``."""
        resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS | (0 if follow else RESOLVE_NO_SYMLINKS)
        return syscalls.openat2(self._descriptor, target, flags, resolve)

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
        finally:
            os.close(above)
        return self.open(target, follow=follow)

    def mount(self, source: str, target: int, kind: str, flags: int, data: str = "") -> None:
        """mount(2) on an open ``target``."""
        syscalls.mount(source, f"/proc/self/fd/{target}", kind, flags, data)

    def next_tree(self) -> int:
        """The next of the parent's mounts, to be put in place and closed."""
        return self._trees.pop(0)

    def adjust(
        self,
        target: str,
        attributes: tuple[int, int] = UNTOUCHED,
        *,
        recursive: tuple[int, int] = UNTOUCHED,
        propagation: Sequence[int] = (),
        follow: bool = False,
    ) -> None:
        """Set and clear attributes of what is mounted on ``target`` by now, and say where its mounts propagate."""
        if attributes == recursive == UNTOUCHED and not propagation:
            return
        opened = self.open(target, follow=follow)
        try:
            if recursive != UNTOUCHED:
                syscalls.mount_setattr(opened, *recursive, recursive=True)
            if attributes != UNTOUCHED:
                syscalls.mount_setattr(opened, *attributes)
            for kind in propagation:
                self.mount("none", opened, "", kind)
        finally:
            os.close(opened)

    def close(self) -> None:
        os.close(self._descriptor)


def make_read_only(path: str) -> None:
    """The mount that ``path`` is the root of, by itself."""
    opened = os.open(path, O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        syscalls.mount_setattr(opened, MOUNT_ATTR_RDONLY, 0)
    finally:
        os.close(opened)
