"""Mounts that are nowhere yet, as descriptors: made, dressed, and only then put where they are wanted.

A mount made by mount(2) is where its path leads, and whoever sets its attributes afterwards looks the path up again:
by then it may lead elsewhere, and a bind mount stays writable that was to be read-only. So each is made detached
(fsopen(2), open_tree(2)), gets its attributes through its own descriptor (mount_setattr(2)), and is moved onto a
descriptor of its place (move_mount(2)). Standard library only; see `lab.runtime.spawner.spawner`.
"""

from __future__ import annotations

import errno
import os

from lab.host import syscalls
from lab.host.syscalls import (
    MOUNT_ATTR_NOATIME,
    MOUNT_ATTR_NODEV,
    MOUNT_ATTR_NODIRATIME,
    MOUNT_ATTR_NOEXEC,
    MOUNT_ATTR_NOSUID,
    MOUNT_ATTR_NOSYMFOLLOW,
    MOUNT_ATTR_RDONLY,
    MOUNT_ATTR_STRICTATIME,
    MS_REC,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

DEAF = (syscalls.MS_PRIVATE,)
"""A root that is a copy of one of the host's mounts: what the host mounts there later is not for the container."""

UNTOUCHED = (0, 0)  # attributes to set, and to clear

OF_MOUNTS = {  # flags of mount(2) that belong to the mount, as attributes
    syscalls.MS_RDONLY: MOUNT_ATTR_RDONLY,
    syscalls.MS_NOSUID: MOUNT_ATTR_NOSUID,
    syscalls.MS_NODEV: MOUNT_ATTR_NODEV,
    syscalls.MS_NOEXEC: MOUNT_ATTR_NOEXEC,
    syscalls.MS_NODIRATIME: MOUNT_ATTR_NODIRATIME,
    syscalls.MS_NOSYMFOLLOW: MOUNT_ATTR_NOSYMFOLLOW,
}
OF_FILE_SYSTEMS = {  # and those that belong to the file system, as parameters of fsconfig(2)
    syscalls.MS_RDONLY: "ro",
    syscalls.MS_SYNCHRONOUS: "sync",
    syscalls.MS_DIRSYNC: "dirsync",
    syscalls.MS_MANDLOCK: "mand",
    syscalls.MS_LAZYTIME: "lazytime",
}
IF_IT_CAN = {syscalls.MS_POSIXACL: "acl", syscalls.MS_I_VERSION: "iversion"}
"""Flags that mount(2) takes from everybody, and that mean something to few file systems: these know them by name."""
OF_LAYERS = ("lowerdir", "upperdir", "workdir")
LONGEST_VALUE_BYTES = 255  # fsconfig(2)
LONGEST_COMPLAINT_BYTES = 4096


def attributes(flags: int) -> int:
    """What is to be set of mount_setattr(2) for ``flags`` of mount(2), on a new mount: relatime unless they say."""
    found = sum(attribute for flag, attribute in OF_MOUNTS.items() if flags & flag)
    if flags & syscalls.MS_STRICTATIME:
        return found | MOUNT_ATTR_STRICTATIME
    return found | (MOUNT_ATTR_NOATIME if flags & syscalls.MS_NOATIME else 0)


def file_system(kind: str, source: str, flags: int, data: str = "", *, writable: bool = False) -> int:
    """A new file system, as mount(2) would make it of these words; the caller's to move and to close.

    ``writable``: for now, though ``flags`` say read-only. Raises OSError, with what the file system itself says.
    """
    if writable:
        flags &= ~syscalls.MS_RDONLY
    context = syscalls.fsopen(kind)
    told = list(parameters(data))
    layers = _Layers(told) if kind == "overlay" and any(_is_long(value) for _, value in told) else None
    try:
        if layers is not None:
            told = layers.enter()
        if source:
            syscalls.fsconfig_string(context, "source", source)
        for flag, name in OF_FILE_SYSTEMS.items():
            if flags & flag:
                syscalls.fsconfig_flag(context, name)
        for flag, name in IF_IT_CAN.items():
            if flags & flag:
                _set_if_it_can(context, name)
        for name, value in told:
            if value is None:
                syscalls.fsconfig_flag(context, name)
            else:
                syscalls.fsconfig_string(context, name, value)
        syscalls.fsconfig_create(context)
        return syscalls.fsmount(context, attributes(flags))
    except OSError as error:
        said = _complaint(context)
        raise OSError(error.errno, f"{said or error.strerror}", f"{kind} {data}".strip()) from error
    finally:
        if layers is not None:
            layers.leave()
        os.close(context)


def _is_long(value: str | None) -> bool:
    return value is not None and len(os.fsencode(value)) > LONGEST_VALUE_BYTES


class _Layers:
    """The directories of an overlay, open and named by their numbers in /proc/self/fd, which is short.

    fsconfig(2) takes 255 bytes a value, which is three layers by their paths and over sixty by their numbers. The
    names are relative, so the process has to be in that directory until the file system is made.
    """

    def __init__(self, told: Sequence[tuple[str, str | None]]) -> None:
        self._told = told
        self._opened: list[int] = []

    def enter(self) -> list[tuple[str, str | None]]:
        """Open them and go there; the parameters with numbers instead of paths."""
        self._opened.append(os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))  # the way back
        found = [(name, self._numbers(value) if name in OF_LAYERS and value else value) for name, value in self._told]
        os.chdir("/proc/self/fd")
        return found

    def leave(self) -> None:
        """Go back, and close them. Idempotent, and right after a failure half way."""
        if self._opened:
            os.fchdir(self._opened[0])
        while self._opened:
            os.close(self._opened.pop())

    def _numbers(self, paths: str) -> str:
        """A colon in a path has a backslash before it (overlayfs, "Multiple lower layers")."""
        return ":".join(path and str(self._open(path)) for path in _unescaped(paths))

    def _open(self, path: str) -> int:
        self._opened.append(os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))
        return self._opened[-1]


def _unescaped(paths: str) -> list[str]:
    """``a:b\\:c`` → ``a`` and ``b:c``."""
    found, escaped = [""], False
    for sign in paths:
        if escaped or sign not in "\\:":
            found[-1] += sign
            escaped = False
        elif sign == "\\":
            escaped = True
        else:
            found.append("")
    return found


def _set_if_it_can(context: int, name: str) -> None:
    try:
        syscalls.fsconfig_flag(context, name)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise


def _complaint(context: int) -> str:
    """The last line that the kernel has written about it, without its mark ("e " for an error)."""
    try:
        said = os.read(context, LONGEST_COMPLAINT_BYTES).decode(errors="replace").strip()
    except OSError:  # ENODATA: nothing
        return ""
    return said[2:] if said[1:2] == " " else said


def parameters(data: str) -> Iterator[tuple[str, str | None]]:
    """The words of mount(2)'s data: ``name=value`` or ``name``; a value in double quotes may hold commas."""
    quoted, begin = False, 0
    for place, sign in enumerate(data + ","):
        if sign == '"':
            quoted = not quoted
        elif (sign == "," and not quoted) or place == len(data):
            name, equals, value = data[begin:place].partition("=")
            if name:
                yield name, value.strip('"') if equals else None
            begin = place + 1


def copy(source: str, *, recursive: bool = False) -> int:
    """A bind mount of the host's file or directory ``source``."""
    return syscalls.open_tree(source, recursive=recursive)


def copy_of(opened: int, *, recursive: bool = False) -> int:
    """A bind mount of what is open as ``opened``."""
    return syscalls.open_tree("", recursive=recursive, directory=opened)


def dress(
    tree: int,
    own: tuple[int, int] = UNTOUCHED,
    recursive: tuple[int, int] = UNTOUCHED,
    propagation: Sequence[int] = (),
) -> None:
    """Set and clear attributes of ``tree``, and of all that is mounted below it; say where its mounts propagate."""
    if recursive != UNTOUCHED:
        syscalls.mount_setattr(tree, *recursive, recursive=True)
    if own != UNTOUCHED:
        syscalls.mount_setattr(tree, *own)
    for kind in propagation:
        syscalls.mount_setattr(tree, 0, 0, propagation=kind & ~MS_REC, recursive=bool(kind & MS_REC))
