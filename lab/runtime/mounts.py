"""Mount operations as data: made by the parent, described in logs and reports, applied by the child.

What lies below a container's root comes from an image, so it is hostile until proven otherwise: ``/proc`` may
be a link to ``../../etc``. Targets are therefore never paths to the kernel. They are opened by openat2(2) with
the root as the world's end, and mounted on by descriptor. For what lab itself mounts, links are refused.

Everything is applied before the root is entered, while the host's /proc can still name descriptors.
Standard library only; see `lab.runtime.spawner`.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass

from lab.host import syscalls
from lab.host.syscalls import (
    MS_BIND,
    MS_NODEV,
    MS_NOEXEC,
    MS_NOSUID,
    MS_PRIVATE,
    MS_RDONLY,
    MS_REC,
    MS_REMOUNT,
    MS_STRICTATIME,
    O_PATH,
    RESOLVE_IN_ROOT,
    RESOLVE_NO_MAGICLINKS,
    RESOLVE_NO_SYMLINKS,
)

MODE_DIRECTORY = 0o755
MOST_LINKS = 40  # as path_resolution(7)
KEPT_ON_REMOUNT = MS_NOSUID | MS_NODEV | MS_NOEXEC  # the same bits as statvfs(3) f_flag

OPTIONS: dict[str, tuple[int, int]] = {  # mount(8) option: flags set, flags cleared
    "defaults": (0, 0),
    "ro": (MS_RDONLY, 0),
    "rw": (0, MS_RDONLY),
    "nosuid": (MS_NOSUID, 0),
    "suid": (0, MS_NOSUID),
    "nodev": (MS_NODEV, 0),
    "dev": (0, MS_NODEV),
    "noexec": (MS_NOEXEC, 0),
    "exec": (0, MS_NOEXEC),
    "sync": (syscalls.MS_SYNCHRONOUS, 0),
    "async": (0, syscalls.MS_SYNCHRONOUS),
    "dirsync": (syscalls.MS_DIRSYNC, 0),
    "noatime": (syscalls.MS_NOATIME, 0),
    "nodiratime": (syscalls.MS_NODIRATIME, 0),
    "relatime": (syscalls.MS_RELATIME, 0),
    "strictatime": (MS_STRICTATIME, 0),
    "bind": (MS_BIND, 0),
    "rbind": (MS_BIND | MS_REC, 0),
    "private": (MS_PRIVATE, 0),
    "rprivate": (MS_PRIVATE | MS_REC, 0),
    "slave": (syscalls.MS_SLAVE, 0),
    "rslave": (syscalls.MS_SLAVE | MS_REC, 0),
}
PROPAGATION = MS_PRIVATE | syscalls.MS_SLAVE | syscalls.MS_SHARED | syscalls.MS_UNBINDABLE


def split_options(options: list[str] | tuple[str, ...]) -> tuple[int, str]:
    """mount(8) options as mount(2) flags and the file system's own data."""
    flags, data = 0, []
    for option in options:
        if option in OPTIONS:
            on, off = OPTIONS[option]
            flags = (flags | on) & ~off
        else:
            data.append(option)
    return flags, ",".join(data)


class Root:
    """A container's root while it is put together; nothing resolved through it can leave it."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._descriptor = os.open(path, O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)

    def open(self, target: str, *, follow: bool = False) -> int:
        """``target`` as an O_PATH descriptor; symbolic links are refused (ELOOP) unless ``follow``."""
        resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS | (0 if follow else RESOLVE_NO_SYMLINKS)
        return syscalls.openat2(self._descriptor, target, O_PATH, resolve)

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

    def remount(self, target: str, flags: int, *, follow: bool = False) -> None:
        """Change the per-mount flags of what is mounted on ``target`` by now, keeping the restrictive ones."""
        opened = self.open(target, follow=follow)
        try:
            kept = os.fstatvfs(opened).f_flag & KEPT_ON_REMOUNT
            self.mount("none", opened, "", MS_BIND | MS_REMOUNT | flags | kept)
        finally:
            os.close(opened)

    def close(self) -> None:
        os.close(self._descriptor)


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One thing to mount. ``describe`` is a line for people; ``apply`` does it or raises OSError."""

    target: str

    def describe(self) -> str:
        raise NotImplementedError

    def apply(self, root: Root) -> None:
        raise NotImplementedError

    def to_json(self) -> dict[str, object]:
        return {"operation": type(self).__name__, **{name: getattr(self, name) for name in self.__dataclass_fields__}}


@dataclass(frozen=True, slots=True, kw_only=True)
class OverlayRoot(Operation):
    """An overlay as the root, mounted on the host path ``target``, inside the container's mount namespace only.

    ``lower`` is top first, as in Documentation/filesystems/overlayfs.rst. Layers are handed over as
    /proc/self/fd paths: a page of options then holds some 200 of them, and no path needs escaping.
    """

    lower: tuple[str, ...]
    upper: str
    work: str

    def describe(self) -> str:
        return f"overlay on /: {len(self.lower)} layers below {self.upper}"

    def mount(self) -> None:
        """Mount it on ``target``."""
        opened: list[int] = []
        try:
            flags = O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
            opened.extend(os.open(layer, flags) for layer in (*self.lower, self.upper, self.work))
            names = [f"/proc/self/fd/{descriptor}" for descriptor in opened]
            # both off, whatever the kernel's default: an upper layer that becomes an image's has to be complete
            data = f"lowerdir={':'.join(names[:-2])},upperdir={names[-2]},workdir={names[-1]}"
            data += ",redirect_dir=off,metacopy=off"
            syscalls.mount("overlay", self.target, "overlay", 0, data)
        finally:
            for descriptor in opened:
                os.close(descriptor)


@dataclass(frozen=True, slots=True, kw_only=True)
class DirectoryRoot(Operation):
    """A plain directory as the root, bound to ``target`` because pivot_root(2) wants a mount point."""

    source: str

    def describe(self) -> str:
        return f"{self.source} on /"

    def mount(self) -> None:
        """Bind it on ``target``."""
        syscalls.mount(self.source, self.target, "", MS_BIND | MS_REC)


@dataclass(frozen=True, slots=True, kw_only=True)
class FileSystem(Operation):
    """A new file system: proc, tmpfs, devpts, …"""

    kind: str
    source: str
    flags: int
    data: str

    def describe(self) -> str:
        return f"{self.kind} on {self.target}{' read-only' if self.flags & MS_RDONLY else ''}"

    def apply(self, root: Root) -> None:
        target = root.ensure(self.target, directory=True)
        try:
            root.mount(self.source, target, self.kind, self.flags, self.data)
        finally:
            os.close(target)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bind(Operation):
    """A file or directory of the host. Links in ``target`` are followed, within the root."""

    source: str
    flags: int

    def describe(self) -> str:
        return f"{self.source} on {self.target}{' read-only' if self.flags & MS_RDONLY else ''}"

    def apply(self, root: Root) -> None:
        target = root.ensure(self.target, directory=os.path.isdir(self.source), follow=True)
        try:
            root.mount(self.source, target, "", MS_BIND | (self.flags & MS_REC))
            if propagation := self.flags & PROPAGATION:
                root.mount("none", target, "", propagation | (self.flags & MS_REC))
        finally:
            os.close(target)
        if restrictions := self.flags & ~(MS_BIND | MS_REC | PROPAGATION):
            root.remount(self.target, restrictions, follow=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class CgroupView(Operation):
    """The container's own cgroups, read-only: one mount per controller on v1, a single one on v2."""

    controllers: tuple[str, ...]  # empty on v2
    flags: int

    def describe(self) -> str:
        return f"cgroups on {self.target}: {' '.join(self.controllers) or 'v2'}"

    def apply(self, root: Root) -> None:
        top = root.ensure(self.target, directory=True)
        try:
            if not self.controllers:
                root.mount("cgroup", top, "cgroup2", self.flags)
                return
            root.mount("tmpfs", top, "tmpfs", self.flags & ~MS_RDONLY, "mode=755,size=64k")
        finally:
            os.close(top)
        for controller in self.controllers:
            place = root.ensure(f"{self.target}/{controller}", directory=True)
            root.mount("cgroup", place, "cgroup", self.flags, controller)
            os.close(place)
        root.remount(self.target, self.flags)


DEVICES = {"null": (1, 3), "zero": (1, 5), "full": (1, 7), "random": (1, 8), "urandom": (1, 9), "tty": (5, 0)}
DEVICE_LINKS = {
    "ptmx": "pts/ptmx",
    "fd": "/proc/self/fd",
    "stdin": "/proc/self/fd/0",
    "stdout": "/proc/self/fd/1",
    "stderr": "/proc/self/fd/2",
    "core": "/proc/kcore",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class DefaultDevices(Operation):
    """The nodes and links that OCI runtime-spec, config-linux.md, wants below /dev.

    ``bind`` takes the host's nodes instead of making them: mknod(2) is refused in a user namespace.
    """

    bind: bool

    def describe(self) -> str:
        return f"{' '.join(DEVICES)} below {self.target}"

    def apply(self, root: Root) -> None:
        directory = root.open(self.target)
        before = os.umask(0)
        try:
            for name, (major, minor) in DEVICES.items():
                if self.bind:
                    Bind(target=f"{self.target}/{name}", source=f"/dev/{name}", flags=0).apply(root)
                else:
                    os.mknod(name, stat.S_IFCHR | 0o666, os.makedev(major, minor), dir_fd=directory)
            for name, destination in DEVICE_LINKS.items():
                os.symlink(destination, name, dir_fd=directory)
        finally:
            os.umask(before)
            os.close(directory)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mask(Operation):
    """Hide what the kernel shows: a file below /dev/null, a directory below an empty read-only tmpfs."""

    def describe(self) -> str:
        return f"mask {self.target}"

    def apply(self, root: Root) -> None:
        try:
            opened = root.open(self.target)
        except FileNotFoundError:
            return  # this kernel has no such file: nothing to hide
        try:
            if stat.S_ISDIR(os.fstat(opened).st_mode):
                root.mount("tmpfs", opened, "tmpfs", MS_RDONLY, "size=0")
            else:
                root.mount("/dev/null", opened, "", MS_BIND)
        finally:
            os.close(opened)


@dataclass(frozen=True, slots=True, kw_only=True)
class MakeReadOnly(Operation):
    """Bind a path on itself, read-only."""

    def describe(self) -> str:
        return f"{self.target} read-only"

    def apply(self, root: Root) -> None:
        try:
            opened = root.open(self.target)
        except FileNotFoundError:
            return
        try:
            root.mount(f"/proc/self/fd/{opened}", opened, "", MS_BIND | MS_REC)
        finally:
            os.close(opened)
        root.remount(self.target, MS_RDONLY)


_OPERATIONS: dict[str, type[Operation]] = {
    kind.__name__: kind
    for kind in (OverlayRoot, DirectoryRoot, FileSystem, Bind, CgroupView, DefaultDevices, Mask, MakeReadOnly)
}


def from_json(value: dict[str, object]) -> Operation:
    """The operation that ``to_json`` wrote."""
    arguments = {name: tuple(field) if isinstance(field, list) else field for name, field in value.items()}
    kind = _OPERATIONS[str(arguments.pop("operation"))]
    return kind(**arguments)  # type: ignore[arg-type]
