"""Mount operations as data: made by the parent, described in logs and reports, applied by the child.

Each mount is made by `lab.runtime.rootfs.mounttrees`, complete before it is anywhere, and put on a place that
`lab.runtime.rootfs.rootpath` looks up, once and within the container's root whatever an image holds. Everything is
applied before the root is entered, while the host's files can still be reached.
Standard library only; see `lab.runtime.spawner.spawner`.
"""

from __future__ import annotations

import errno
import os
import stat

from lab.host import syscalls
from lab.host.identity import ownspace
from lab.host.syscalls import (
    MOUNT_ATTR_RDONLY,
    MS_RDONLY,
    MS_REMOUNT,
    O_PATH,
    RESOLVE_BENEATH,
    RESOLVE_NO_SYMLINKS,
)
from lab.record import Record, items
from lab.runtime.rootfs import mounttrees, rootpath, streams
from lab.runtime.rootfs.mounttrees import UNTOUCHED
from lab.runtime.rootfs.rootpath import MODE_DIRECTORY, Root
from lab.shims import suppress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Operation(Record):
    """One thing to mount. ``describe`` is a line for people; ``apply`` does it or raises OSError."""

    target: str

    def describe(self) -> str:
        raise NotImplementedError

    def apply(self, root: Root) -> None:
        raise NotImplementedError

    def to_json(self) -> dict[str, object]:
        return {"operation": type(self).__name__, **items(self)}


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

    def mount(self) -> int:
        """Mount it on ``target``; its root, open, which is the caller's to close."""
        opened: list[int] = []
        try:
            flags = O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
            opened.extend(os.open(layer, flags) for layer in (*self.lower, self.upper, self.work))
            names = [f"/proc/self/fd/{descriptor}" for descriptor in opened]
            syscalls.mount("overlay", self.target, "overlay", 0, overlay_options(":".join(names[:-2]), *names[-2:]))
            return os.open(self.target, flags)
        finally:
            for descriptor in opened:
                os.close(descriptor)


def overlay_options(lower: str, upper: str, work: str) -> str:
    """The last two off, whatever the kernel's default: an upper layer that becomes an image's has to be complete.

    An ordinary user's overlay marks what it has to mark by attributes that a user may set, and then both are off by
    themselves (overlayfs.rst, "User xattr").
    """
    complete = "userxattr" if ownspace.here() else "redirect_dir=off,metacopy=off"
    return f"lowerdir={lower},upperdir={upper},workdir={work},{complete}"


class DirectoryRoot(Operation):
    """A plain directory as the root, bound to ``target`` because pivot_root(2) wants a mount point."""

    source: str

    def describe(self) -> str:
        return f"{self.source} on /"

    def mount(self) -> int:
        """Bind it on ``target``; its root, open, which is the caller's to close."""
        tree = mounttrees.copy(self.source, recursive=True)
        mounttrees.dress(tree, propagation=mounttrees.DEAF)
        place = os.open(self.target, O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            syscalls.move_mount(tree, place)
        finally:
            os.close(place)
        return tree


class FileSystem(Operation):
    """A new file system: proc, tmpfs, devpts, … ``copy_up`` takes along what the directory held (tmpfs).

    A ``tree`` is made by the parent, see `lab.runtime.rootfs.idmap`, in the namespace at the path ``within`` or its
    own.
    """

    kind: str
    source: str
    flags: int
    data: str
    recursive: tuple[int, int] = UNTOUCHED
    propagation: tuple[int, ...] = ()
    copy_up: bool = False
    tree: bool = False
    within: str = ""

    def describe(self) -> str:
        return f"{self.kind} on {self.target}{' read-only' if self.flags & MS_RDONLY else ''}"

    def apply(self, root: Root) -> None:
        data = self.data
        try:
            place = root.open(self.target)
            if self.kind == "tmpfs" and "mode=" not in data:  # it takes over that of the directory that it covers
                mode = f"mode={stat.S_IMODE(os.fstat(place).st_mode):o}"
                data = f"{data},{mode}"
        except FileNotFoundError:
            place = root.ensure(self.target, directory=True)
        root.attach(root.next_tree() if self.tree else self.made(data, place), place, self.target)

    def made(self, data: str, place: int) -> int:
        """The mount with all its attributes, before it is anywhere; ``place`` is what it will cover."""
        tree = mounttrees.file_system(self.kind, self.source, self.flags, data, writable=self.copy_up)
        own = UNTOUCHED
        if self.copy_up:
            _copy_up(place, tree)
            own = (mounttrees.attributes(self.flags & MS_RDONLY), 0)
        mounttrees.dress(tree, own, self.recursive, self.propagation)
        return tree


def _copy_up(place: int, tree: int) -> None:
    from lab.runtime.rootfs import copyup  # few mounts ask for it

    below = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=place)
    above = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=tree)
    try:
        copyup.copy(below, above)
    finally:
        os.close(below)
        os.close(above)


class Remount(Operation):
    """Other flags or data for what is mounted on ``target`` by now."""

    flags: int
    data: str

    def describe(self) -> str:
        return f"remount {self.target}{' read-only' if self.flags & MS_RDONLY else ''}"

    def apply(self, root: Root) -> None:
        opened = root.open(self.target, follow=True)
        try:
            syscalls.mount("none", f"/proc/self/fd/{opened}", "", self.flags | MS_REMOUNT, self.data)
        finally:
            os.close(opened)


class Bind(Operation):
    """A file or directory of the host. Links in ``target`` are followed, within the root.

    A ``tree`` has been made by the parent, see `lab.runtime.rootfs.idmap`: in a user namespace all are, elsewhere
    those with an ``idmap``. ``uid_map`` and ``gid_map`` are that one's own, or empty for the container's.
    """

    source: str
    whole: bool = False  # with what is mounted below it
    attributes: tuple[int, int] = UNTOUCHED
    recursive: tuple[int, int] = UNTOUCHED
    propagation: tuple[int, ...] = ()
    tree: bool = False
    idmap: str = ""
    uid_map: str = ""
    gid_map: str = ""

    def describe(self) -> str:
        read_only = (self.attributes[0] | self.recursive[0]) & MOUNT_ATTR_RDONLY
        return f"{self.source} on {self.target}{' read-only' if read_only else ''}"

    def apply(self, root: Root) -> None:
        tree = root.next_tree() if self.tree else self.made()
        directory = stat.S_ISDIR(os.fstat(tree).st_mode)
        try:
            place, remembered = root.ensure(self.target, directory=directory), self.target
        except OSError as error:
            if not rootpath.has_links(error):
                raise
            place, remembered = root.ensure(self.target, directory=directory, follow=True), ""
        root.attach(tree, place, remembered if directory else "")

    def made(self, first: tuple[int, ...] = ()) -> int:
        """The mount with all its attributes, before it is anywhere; ``first`` is how it propagates unless it says."""
        tree = mounttrees.copy(self.source, recursive=self.whole)
        try:
            mounttrees.dress(tree, self.attributes, self.recursive, (*first, *self.propagation))
        except OSError:
            os.close(tree)
            raise
        return tree


class CgroupView(Operation):
    """The container's own cgroups: one mount per v1 hierarchy, named by its controllers, or the one of v2.

    A container with a cgroup namespace sees its own group as the root. For one without, ``sources`` are the group's
    directories, one for each hierarchy, and bound instead.
    """

    controllers: tuple[str, ...]  # empty on v2
    flags: int
    sources: tuple[str, ...] = ()
    propagation: tuple[int, ...] = ()

    def describe(self) -> str:
        return f"cgroups on {self.target}: {' '.join(self.controllers) or 'v2'}"

    def apply(self, root: Root) -> None:
        place = root.ensure(self.target, directory=True)
        if not self.controllers:
            tree = self._shown("cgroup2", "", "".join(self.sources))
            mounttrees.dress(tree, propagation=self.propagation)
            root.attach(tree, place, self.target)
            return
        top = mounttrees.file_system("tmpfs", "tmpfs", self.flags & ~MS_RDONLY, "mode=755,size=64k")
        root.attach(top, place, self.target)
        sources = self.sources or ("",) * len(self.controllers)
        for names, source in zip(self.controllers, sources, strict=True):
            os.mkdir(names, MODE_DIRECTORY, dir_fd=top)
            below = os.open(names, O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=top)
            root.attach(self._shown("cgroup", names, source), below)
        for name, names in self._together():  # ``cpu`` leads to ``cpu,cpuacct``
            os.symlink(names, name, dir_fd=top)
        mounttrees.dress(top, (mounttrees.attributes(self.flags & MS_RDONLY), 0), propagation=self.propagation)

    def _shown(self, kind: str, data: str, source: str) -> int:
        if not source:
            return mounttrees.file_system(kind, "cgroup", self.flags, data)
        tree = mounttrees.copy(source)
        mounttrees.dress(tree, (mounttrees.attributes(self.flags), 0))
        return tree

    def _together(self) -> list[tuple[str, str]]:
        return [(name, names) for names in self.controllers if "," in names for name in names.split(",")]


UNCHANGEABLE = (MOUNT_ATTR_RDONLY, 0)
"""Of a device of the host's: root of a user namespace may own it, and could give it another mode. What is written to
it is its driver's, and no file system's.
"""
DEVICES = {"null": (1, 3), "zero": (1, 5), "full": (1, 7), "random": (1, 8), "urandom": (1, 9), "tty": (5, 0)}
DEVICE_LINKS = {
    "ptmx": "pts/ptmx",
    "fd": "/proc/self/fd",
    "stdin": "/proc/self/fd/0",
    "stdout": "/proc/self/fd/1",
    "stderr": "/proc/self/fd/2",
    "core": "/proc/kcore",
}


class DefaultDevices(Operation):
    """The nodes and links that OCI runtime-spec, config-linux.md, wants below /dev.

    ``bind`` takes the host's nodes instead of making them: mknod(2) is refused in a user namespace. In a /dev that is
    the root's own something may be there; it is left as it is.
    """

    bind: bool

    def describe(self) -> str:
        return f"{' '.join(DEVICES)} below {self.target}"

    def apply(self, root: Root) -> None:
        directory = root.ensure(self.target, directory=True)
        before = os.umask(0)
        try:
            for name, (major, minor) in DEVICES.items():
                if self.bind:
                    Bind(target=f"{self.target}/{name}", source=f"/dev/{name}", attributes=UNCHANGEABLE).apply(root)
                else:
                    with suppress(FileExistsError):
                        os.mknod(name, stat.S_IFCHR | 0o666, os.makedev(major, minor), dir_fd=directory)
            for name, destination in DEVICE_LINKS.items():
                if name != "core" or os.path.exists(destination):  # CONFIG_PROC_KCORE
                    with suppress(FileExistsError):
                        os.symlink(destination, name, dir_fd=directory)
        finally:
            os.umask(before)
            os.close(directory)


class DeviceNode(Operation):
    """A node of linux.devices. ``kind`` is a file type of mknod(2). ``bind`` takes the host's node with these
    numbers, wherever that is, with its mode and its owner.
    """

    kind: int
    major: int
    minor: int
    mode: int
    uid: int
    gid: int
    bind: bool

    def describe(self) -> str:
        return f"{self.target}, device {self.major}:{self.minor}"

    def apply(self, root: Root) -> None:
        if self.bind:
            self._refuse_another(root)
            Bind(target=self.target, source=self._of_the_host(), attributes=UNCHANGEABLE).apply(root)
            return
        parent, _, name = self.target.rpartition("/")
        directory = root.ensure(parent or "/", directory=True)
        number = os.makedev(self.major, self.minor)
        try:
            with suppress(FileExistsError):
                os.mknod(name, self.kind | 0o600, number, dir_fd=directory)
            opened = syscalls.openat2(directory, name, O_PATH, RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS)
        finally:
            os.close(directory)
        if not self._is_it(os.fstat(opened)):
            raise FileExistsError(errno.EEXIST, "something else is there", self.target)
        os.chown(f"/proc/self/fd/{opened}", self.uid, self.gid)
        os.chmod(f"/proc/self/fd/{opened}", self.mode)
        os.close(opened)

    def _is_it(self, found: os.stat_result) -> bool:
        return (stat.S_IFMT(found.st_mode), found.st_rdev) == (self.kind, os.makedev(self.major, self.minor))

    def _refuse_another(self, root: Root) -> None:
        """A file at the path that is not the device (config-linux.md "Devices"), nor empty as what is mounted on."""
        try:
            opened = root.open(self.target, follow=True)
        except FileNotFoundError:
            return
        found = os.fstat(opened)
        os.close(opened)
        if not self._is_it(found) and not (stat.S_ISREG(found.st_mode) and found.st_size == 0):
            raise FileExistsError(errno.EEXIST, "something else is there", self.target)

    def _of_the_host(self) -> str:
        """Where the host has a node with the same numbers: where the kernel says, or at the same path."""
        numbers = f"{self.major}:{self.minor}"
        names = [self.target]
        known = f"/sys/dev/{'block' if self.kind == stat.S_IFBLK else 'char'}/{numbers}/uevent"
        with suppress(FileNotFoundError), open(known) as file:
            names += [f"/dev/{line[8:].rstrip()}" for line in file if line.startswith("DEVNAME=")]
        for name in names:
            with suppress(FileNotFoundError, NotADirectoryError):
                if self._is_it(os.stat(name)):
                    return name
        raise FileNotFoundError(errno.ENOENT, f"the host has no node for device {numbers}")


class Mask(Operation):
    """Hide what the kernel shows: a file below a null device, a directory below an empty read-only tmpfs."""

    def describe(self) -> str:
        return f"mask {self.target}"

    def apply(self, root: Root) -> None:
        try:
            opened = root.open(self.target)
        except FileNotFoundError:
            return  # this kernel has no such file: nothing to hide
        directory = stat.S_ISDIR(os.fstat(opened).st_mode)
        root.attach(_nothing(root) if directory else _null(root), opened)


def _null(root: Root) -> int:
    """The container's own, if that is one. Root of a container owns the host's as well, and could change its mode but
    for a read-only mount.
    """
    with suppress(OSError):
        own = root.open("/dev/null")
        try:
            if streams.is_null(own):
                return mounttrees.copy_of(own)
        finally:
            os.close(own)
    tree = mounttrees.copy("/dev/null")
    mounttrees.dress(tree, UNCHANGEABLE)
    return tree


def _nothing(root: Root) -> int:
    """An empty read-only directory: copies of the first, since a file system more for each mask takes its time.

    Of the first where it is attached: what is nowhere can be copied since Linux 6.15 alone.
    """
    if root.scratch < 0:
        root.scratch = mounttrees.file_system("tmpfs", "tmpfs", MS_RDONLY, "size=0")
        return os.dup(root.scratch)
    return mounttrees.copy_of(root.scratch)


class MakeReadOnly(Operation):
    """Bind a path on itself, read-only."""

    def describe(self) -> str:
        return f"{self.target} read-only"

    def apply(self, root: Root) -> None:
        try:
            opened = root.open(self.target)
        except FileNotFoundError:
            return
        tree = mounttrees.copy_of(opened, recursive=True)
        mounttrees.dress(tree, (MOUNT_ATTR_RDONLY, 0))
        root.attach(tree, opened)


_OPERATIONS: dict[str, type[Operation]] = {kind.__name__: kind for kind in Operation.__subclasses__()}


def from_json(value: dict[str, Any]) -> Operation:
    """The operation that ``to_json`` wrote."""
    fields: dict[str, Any] = {name: tuple(field) if type(field) is list else field for name, field in value.items()}
    return _OPERATIONS[fields.pop("operation")](**fields)
