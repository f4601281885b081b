"""Mount operations as data: made by the parent, described in logs and reports, applied by the child.

Targets are resolved by `lab.runtime.rooted`, within the container's root whatever an image holds.
Everything is applied before the root is entered, while the host's /proc can still name descriptors.
Standard library only; see `lab.runtime.spawner`.
"""

from __future__ import annotations

import os
import stat

from lab.host import syscalls
from lab.host.syscalls import MOUNT_ATTR_RDONLY, MS_BIND, MS_RDONLY, MS_REC, MS_REMOUNT, O_PATH
from lab.record import Record, items
from lab.runtime.rooted import UNTOUCHED, Root

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

    def mount(self) -> None:
        """Mount it on ``target``."""
        opened: list[int] = []
        try:
            flags = O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
            opened.extend(os.open(layer, flags) for layer in (*self.lower, self.upper, self.work))
            names = [f"/proc/self/fd/{descriptor}" for descriptor in opened]
            syscalls.mount("overlay", self.target, "overlay", 0, overlay_options(":".join(names[:-2]), *names[-2:]))
        finally:
            for descriptor in opened:
                os.close(descriptor)


def overlay_options(lower: str, upper: str, work: str) -> str:
    """The last two off, whatever the kernel's default: an upper layer that becomes an image's has to be complete."""
    return f"lowerdir={lower},upperdir={upper},workdir={work},redirect_dir=off,metacopy=off"


class DirectoryRoot(Operation):
    """A plain directory as the root, bound to ``target`` because pivot_root(2) wants a mount point."""

    source: str

    def describe(self) -> str:
        return f"{self.source} on /"

    def mount(self) -> None:
        """Bind it on ``target``."""
        syscalls.mount(self.source, self.target, "", MS_BIND | MS_REC)


class FileSystem(Operation):
    """A new file system: proc, tmpfs, devpts, … ``copy_up`` takes along what the directory held (tmpfs)."""

    kind: str
    source: str
    flags: int
    data: str
    recursive: tuple[int, int] = UNTOUCHED
    propagation: tuple[int, ...] = ()
    copy_up: bool = False

    def describe(self) -> str:
        return f"{self.kind} on {self.target}{' read-only' if self.flags & MS_RDONLY else ''}"

    def apply(self, root: Root) -> None:
        data = self.data
        if self.kind == "tmpfs" and "mode=" not in data:
            data = ",".join([word for word in (data, _mode_of(root, self.target)) if word])
        target = root.ensure(self.target, directory=True)
        try:
            if self.copy_up:
                self._copy_up(root, target, data)
            else:
                root.mount(self.source, target, self.kind, self.flags, data)
        finally:
            os.close(target)
        root.adjust(self.target, recursive=self.recursive, propagation=self.propagation)

    def _copy_up(self, root: Root, target: int, data: str) -> None:
        from lab.runtime import copyup  # few mounts ask for it

        below = root.open(self.target, flags=os.O_RDONLY | os.O_DIRECTORY)
        root.mount(self.source, target, self.kind, self.flags & ~MS_RDONLY, data)
        above = root.open(self.target, flags=os.O_RDONLY | os.O_DIRECTORY)
        try:
            copyup.copy(below, above)
        finally:
            os.close(below)
            os.close(above)
        if self.flags & MS_RDONLY:
            root.adjust(self.target, (MOUNT_ATTR_RDONLY, 0))


def _mode_of(root: Root, target: str) -> str:
    """A tmpfs takes over the mode of the directory that it covers, as under other runtimes."""
    try:
        opened = root.open(target)
    except FileNotFoundError:
        return ""
    try:
        return f"mode={stat.S_IMODE(os.fstat(opened).st_mode):o}"
    finally:
        os.close(opened)


class Remount(Operation):
    """Other flags or data for what is mounted on ``target`` by now."""

    flags: int
    data: str

    def describe(self) -> str:
        return f"remount {self.target}{' read-only' if self.flags & MS_RDONLY else ''}"

    def apply(self, root: Root) -> None:
        opened = root.open(self.target, follow=True)
        try:
            root.mount("none", opened, "", self.flags | MS_REMOUNT, self.data)
        finally:
            os.close(opened)


class Bind(Operation):
    """A file or directory of the host. Links in ``target`` are followed, within the root.

    A ``tree`` has been made by the parent, see `lab.runtime.idmap`: in a user namespace all are, elsewhere those
    with an ``idmap``. ``uid_map`` and ``gid_map`` are that one's own, or empty for the container's.
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
        tree = root.next_tree() if self.tree else -1
        directory = stat.S_ISDIR(os.stat(tree if self.tree else self.source).st_mode)
        target = root.ensure(self.target, directory=directory, follow=True)
        try:
            if self.tree:
                syscalls.move_mount(tree, target)
                os.close(tree)
            else:
                root.mount(self.source, target, "", MS_BIND | (MS_REC if self.whole else 0))
        finally:
            os.close(target)
        root.adjust(self.target, self.attributes, recursive=self.recursive, propagation=self.propagation, follow=True)


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
        top = root.ensure(self.target, directory=True)
        try:
            if not self.controllers:
                self._show(root, self.target, top, "cgroup2", "", "".join(self.sources))
                return
            root.mount("tmpfs", top, "tmpfs", self.flags & ~MS_RDONLY, "mode=755,size=64k")
        finally:
            os.close(top)
        sources = self.sources or ("",) * len(self.controllers)
        for names, source in zip(self.controllers, sources, strict=True):
            place = root.ensure(f"{self.target}/{names}", directory=True)
            self._show(root, f"{self.target}/{names}", place, "cgroup", names, source)
            os.close(place)
        self._link(root)
        read_only = MOUNT_ATTR_RDONLY if self.flags & MS_RDONLY else 0
        root.adjust(self.target, (read_only, 0), propagation=self.propagation)

    def _show(self, root: Root, name: str, target: int, kind: str, data: str, source: str) -> None:
        if source:
            root.mount(source, target, "", MS_BIND)
            root.adjust(name, (self.flags & 0xF, 0))  # read-only to noexec are the same bits in both worlds
        else:
            root.mount("cgroup", target, kind, self.flags, data)

    def _link(self, root: Root) -> None:
        """``cpu`` leads to ``cpu,cpuacct``."""
        together = [(name, names) for names in self.controllers if "," in names for name in names.split(",")]
        if together:
            directory = root.open(self.target)
            for name, names in together:
                os.symlink(names, name, dir_fd=directory)
            os.close(directory)


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
                    Bind(target=f"{self.target}/{name}", source=f"/dev/{name}").apply(root)
                else:
                    os.mknod(name, stat.S_IFCHR | 0o666, os.makedev(major, minor), dir_fd=directory)
            for name, destination in DEVICE_LINKS.items():
                if name != "core" or os.path.exists(destination):  # CONFIG_PROC_KCORE
                    os.symlink(destination, name, dir_fd=directory)
        finally:
            os.umask(before)
            os.close(directory)


class DeviceNode(Operation):
    """A node of linux.devices. ``kind`` is a file type of mknod(2); ``bind`` as for `DefaultDevices`."""

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
            Bind(target=self.target, source=self.target).apply(root)
            return
        parent, _, name = self.target.rpartition("/")
        directory = root.ensure(parent or "/", directory=True)
        number = os.makedev(self.major, self.minor)
        try:
            os.mknod(name, self.kind | 0o600, number, dir_fd=directory)
        except FileExistsError:
            found = os.stat(name, dir_fd=directory, follow_symlinks=False)
            if (stat.S_IFMT(found.st_mode), found.st_rdev) != (self.kind, number):
                raise
        finally:
            os.close(directory)
        opened = root.open(self.target)
        os.chown(f"/proc/self/fd/{opened}", self.uid, self.gid)
        os.chmod(f"/proc/self/fd/{opened}", self.mode)
        os.close(opened)


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
        root.adjust(self.target, (MOUNT_ATTR_RDONLY, 0))


_OPERATIONS: dict[str, type[Operation]] = {kind.__name__: kind for kind in Operation.__subclasses__()}


def from_json(value: dict[str, Any]) -> Operation:
    """The operation that ``to_json`` wrote."""
    fields: dict[str, Any] = {name: tuple(field) if type(field) is list else field for name, field in value.items()}
    return _OPERATIONS[fields.pop("operation")](**fields)
