"""What `lab.runtime.rootfs` does, the same calls in the same order, as a part of a `Script`.

A target is opened once, within the root, without links; what is mounted is remembered by its descriptor, as
`lab.runtime.rootfs.rootpath` does it. Standard library only; see `lab.runtime.spawner.spawner`.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import struct

from lab.host import syscalls
from lab.host.syscalls import AT_EMPTY_PATH, AT_FDCWD, AT_RECURSIVE, MOUNT_ATTR_RDONLY, O_PATH
from lab.runtime.plan import Enter, Plan
from lab.runtime.rootfs import mounts, mounttrees
from lab.runtime.scripts.script import DISCARD, SKIP_IF_DONE, Register, Script, text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

LAYER_DESCRIPTORS = 500  # the first number of an overlay's layers
MOVE_OPENED = 0x4 | 0x40  # MOVE_MOUNT_F_EMPTY_PATH, MOVE_MOUNT_T_EMPTY_PATH
CLONE_TREE = syscalls.OPEN_TREE_CLONE | os.O_CLOEXEC
IN_ROOT = syscalls.RESOLVE_IN_ROOT | syscalls.RESOLVE_NO_MAGICLINKS
WITHOUT_LINKS = IN_ROOT | syscalls.RESOLVE_NO_SYMLINKS
DIRECTORY = O_PATH | os.O_DIRECTORY | os.O_CLOEXEC


class RootfsScript:
    """The part of a script that mounts."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.root = script.register()
        self.scratch = script.register()
        self.mounted: dict[str, Register] = {}

    def mount_root(self, plan: Plan) -> None:
        self.script.call("mount", b"none", b"/", b"", plan.propagation, b"")
        operation = mounts.from_json(plan.root)
        if isinstance(operation, mounts.OverlayRoot):
            names = []
            for number, layer in enumerate((*operation.lower, operation.upper, operation.work), LAYER_DESCRIPTORS):
                opened = self.script.register()
                self.script.call("openat", AT_FDCWD, text(layer), DIRECTORY, to=opened)
                self.script.call("dup3", opened, number, os.O_CLOEXEC)
                self.script.call("close", opened)
                names.append(f"/proc/self/fd/{number}")
            options = mounts.overlay_options(":".join(names[:-2]), *names[-2:])
            target = text(operation.target)
            self.script.call("mount", b"overlay", target, b"overlay", 0, text(options))
            self.script.call("openat", AT_FDCWD, target, DIRECTORY, to=self.root)
            self.script.call("close_range", LAYER_DESCRIPTORS, LAYER_DESCRIPTORS + len(names) - 1, 0)
            return
        assert isinstance(operation, mounts.DirectoryRoot)
        self.copy(text(operation.source), recursive=True, to=self.root)
        self.dress(self.root, mounttrees.UNTOUCHED, mounttrees.UNTOUCHED, mounttrees.DEAF)
        place = self.script.register()
        self.script.call("openat", AT_FDCWD, text(operation.target), DIRECTORY, to=place)
        self.script.call("move_mount", self.root, b"", place, b"", MOVE_OPENED)
        self.script.call("close", place)

    def add_all(self, operations: Sequence[dict[str, Any]]) -> None:
        """In their order. Of those beside one another that most containers have in common a part is made."""
        common: list[dict[str, Any]] = []
        for operation in operations:
            if operation["operation"] != "Bind":
                common.append(operation)
                continue
            self.add_common(common)
            common = []
            self.add(operation)
        self.add_common(common)

    def add_common(self, operations: list[dict[str, Any]]) -> None:
        def write() -> dict[str, Register]:
            for operation in operations:
                self.add(operation)
            return dict(self.mounted)

        if operations:
            key = repr((operations, self.root, self.scratch, self.mounted))
            self.mounted = dict(self.script.part(key, write))

    def add(self, value: dict[str, Any]) -> None:
        operation = mounts.from_json(value)
        if isinstance(operation, mounts.FileSystem):
            self.add_file_system(operation)
        elif isinstance(operation, mounts.Bind):
            self.bind(operation)
        elif isinstance(operation, mounts.CgroupView):
            self.show_cgroups(operation)
        elif isinstance(operation, mounts.DefaultDevices):
            self.make_devices(operation)
        elif isinstance(operation, mounts.Mask):
            self.mask(operation.target)
        else:
            self.make_read_only(operation.target)

    def open(self, target: str, pardon: int = 0, flags: int = O_PATH) -> tuple[Register, Any]:
        """`Root.open`, and what says where to go on after the errno ``pardon``."""
        begin, rest, place = self.root, target, target
        while place:
            if place in self.mounted:
                begin, rest = self.mounted[place], target[len(place) + 1 :]
                break
            place = place.rpartition("/")[0]
        opened = self.script.register()
        how = struct.pack("<QQQ", flags | os.O_CLOEXEC, 0, WITHOUT_LINKS)
        after = self.script.call("openat2", begin, text(rest or "."), how, len(how), to=opened, pardon=pardon)
        return opened, after

    def ensure(self, target: str, *, directory: bool, made: Register = DISCARD) -> Register:
        """`Root.ensure`, in a folder that is there: nothing above the target is made. ``made`` is set if that was."""
        place, absent = self.open(target, errno.ENOENT)
        there = self.script.call("NOTHING", flags=SKIP_IF_DONE)
        absent()
        parent, _, name = target.rpartition("/")
        above, _ = self.open(parent or "/")
        if directory:
            self.script.call("mkdirat", above, text(name), 0o755)
        else:
            file = self.script.register()
            flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC
            self.script.call("openat", above, text(name), flags, 0o644, to=file)
            self.script.call("close", file)
        how = struct.pack("<QQQ", O_PATH | os.O_CLOEXEC, 0, syscalls.RESOLVE_IN_ROOT | syscalls.RESOLVE_NO_SYMLINKS)
        self.script.call("openat2", above, text(name), how, len(how), to=place)
        self.script.call("close", above)
        self.script.call("NOTHING", to=made)
        there()
        return place

    def attach(self, tree: Register, place: Register, target: str = "") -> None:
        self.script.call("move_mount", tree, b"", place, b"", MOVE_OPENED)
        self.script.call("close", place)
        if target:
            self.mounted[target] = tree
        else:
            self.script.call("close", tree)

    def copy(self, source: bytes, *, recursive: bool = False, to: Register, opened: int = AT_FDCWD) -> None:
        flags = CLONE_TREE | (AT_RECURSIVE if recursive else 0) | (0 if source else AT_EMPTY_PATH)
        self.script.call("open_tree", opened, source, flags, to=to)

    def dress(
        self, tree: Register, own: tuple[int, int], recursive: tuple[int, int], propagation: tuple[int, ...]
    ) -> None:
        if recursive != mounttrees.UNTOUCHED:
            self.set(tree, *recursive, whole=True)
        if own != mounttrees.UNTOUCHED:
            self.set(tree, *own)
        for kind in propagation:
            self.set(tree, 0, 0, kind & ~syscalls.MS_REC, whole=bool(kind & syscalls.MS_REC))

    def set(self, tree: Register, wanted: int, cleared: int, propagation: int = 0, *, whole: bool = False) -> None:
        """mount_setattr(2), with the arguments that `syscalls.mount_setattr` has."""
        attributes = struct.pack("<QQQQ", wanted, cleared, propagation, 0)
        flags = AT_EMPTY_PATH | (AT_RECURSIVE if whole else 0)
        self.script.call("mount_setattr", tree, b"", flags, attributes, len(attributes))

    def file_system(
        self, kind: str, source: str, flags: int, data: str, place: Register | None = None, made: Register = DISCARD
    ) -> Register:
        """`mounttrees.file_system`; a tmpfs takes its mode from ``place``, unless that was ``made`` for it."""
        context, tree = self.script.register(), self.script.register()
        self.script.call("fsopen", kind.encode(), syscalls.FSOPEN_CLOEXEC, to=context)
        if source:
            self.configure(context, "source", source)
        for flag, name in mounttrees.OF_FILE_SYSTEMS.items():
            if flags & flag:
                self.configure(context, name)
        for flag, name in mounttrees.IF_IT_CAN.items():
            if flags & flag:
                self.configure(context, name, pardon=errno.EINVAL)
        for name, value in mounttrees.parameters(data):
            self.configure(context, name, value)
        if place is not None and kind == "tmpfs" and "mode=" not in data:
            anew = self.script.call("IS_SET", made, pardon=errno.ENOENT, flags=SKIP_IF_DONE)
            self.script.call("MODE_OF", context, place)
            anew()
        self.script.call("fsconfig", context, syscalls.FSCONFIG_CMD_CREATE, 0, 0, 0)
        self.script.call("fsmount", context, syscalls.FSMOUNT_CLOEXEC, mounttrees.attributes(flags), to=tree)
        self.script.call("close", context)
        return tree

    def configure(self, context: Register, name: str, value: str | None = None, pardon: int = 0) -> None:
        if value is None:
            self.script.call("fsconfig", context, syscalls.FSCONFIG_SET_FLAG, name.encode(), 0, 0, pardon=pardon)
        else:
            self.script.call("fsconfig", context, syscalls.FSCONFIG_SET_STRING, name.encode(), text(value), 0)

    def add_file_system(self, operation: mounts.FileSystem) -> None:
        made = self.script.register()
        place = self.ensure(operation.target, directory=True, made=made)
        tree = self.file_system(operation.kind, operation.source, operation.flags, operation.data, place, made)
        self.dress(tree, mounttrees.UNTOUCHED, operation.recursive, operation.propagation)
        self.attach(tree, place, operation.target)

    def bind(self, operation: mounts.Bind) -> None:
        tree = self.script.register()
        self.copy(text(operation.source), recursive=operation.whole, to=tree)
        self.dress(tree, operation.attributes, operation.recursive, operation.propagation)
        place = self.ensure(operation.target, directory=os.path.isdir(operation.source))
        self.attach(tree, place)

    def show_cgroups(self, operation: mounts.CgroupView) -> None:
        place = self.ensure(operation.target, directory=True)
        if not operation.controllers:
            tree = self.file_system("cgroup2", "cgroup", operation.flags, "")
            self.dress(tree, mounttrees.UNTOUCHED, mounttrees.UNTOUCHED, operation.propagation)
            self.attach(tree, place, operation.target)
            return
        top = self.file_system("tmpfs", "tmpfs", operation.flags & ~syscalls.MS_RDONLY, "mode=755,size=64k")
        self.attach(top, place, operation.target)
        for names in operation.controllers:
            below = self.script.register()
            self.script.call("mkdirat", top, names.encode(), 0o755)
            self.script.call("openat", top, names.encode(), DIRECTORY | os.O_NOFOLLOW, to=below)
            self.attach(self.file_system("cgroup", "cgroup", operation.flags, names), below)
        for names in operation.controllers:
            for name in names.split(",") if "," in names else ():
                self.script.call("symlinkat", names.encode(), top, name.encode())
        own = mounttrees.attributes(operation.flags & syscalls.MS_RDONLY), 0
        self.dress(top, own, mounttrees.UNTOUCHED, operation.propagation)

    def make_devices(self, operation: mounts.DefaultDevices) -> None:
        directory = self.ensure(operation.target, directory=True)
        before = self.script.register()
        self.script.call("umask", 0, to=before)
        for name, (major, minor) in mounts.DEVICES.items():
            number = os.makedev(major, minor)
            self.script.call("mknodat", directory, name.encode(), stat.S_IFCHR | 0o666, number, pardon=errno.EEXIST)
        for name, destination in mounts.DEVICE_LINKS.items():
            if name != "core" or os.path.exists(destination):
                self.script.call("symlinkat", destination.encode(), directory, name.encode(), pardon=errno.EEXIST)
        self.script.call("umask", before)
        self.script.call("close", directory)

    def mask(self, target: str) -> None:
        place, absent = self.open(target, errno.ENOENT)
        tree = self.script.register()
        is_file = self.script.call("IS_DIRECTORY", place, pardon=errno.ENOTDIR)
        another = self.script.call("IS_SET", self.scratch, pardon=errno.ENOENT, flags=SKIP_IF_DONE)
        first = self.file_system("tmpfs", "tmpfs", syscalls.MS_RDONLY, "size=0")
        self.script.call("NOTHING", first, to=self.scratch)
        self.script.call("fcntl", first, fcntl.F_DUPFD_CLOEXEC, 0, to=tree)
        ready = self.script.call("NOTHING", flags=SKIP_IF_DONE)
        another()
        self.copy(b"", opened=self.scratch, to=tree)
        ready_too = self.script.call("NOTHING", flags=SKIP_IF_DONE)
        is_file()
        null, _ = self.open("/dev/null")
        self.script.call("IS_NULL", null)
        self.copy(b"", opened=null, to=tree)
        self.script.call("close", null)
        ready()
        ready_too()
        self.attach(tree, place)
        absent()

    def make_read_only(self, target: str) -> None:
        place, absent = self.open(target, errno.ENOENT)
        tree = self.script.register()
        self.copy(b"", recursive=True, opened=place, to=tree)
        self.set(tree, MOUNT_ATTR_RDONLY, 0)
        self.attach(tree, place)
        absent()

    def enter(self, plan: Plan) -> None:
        """`setup.enter_root`."""
        call = self.script.call
        old = self.script.register()
        call("openat", AT_FDCWD, b"/", DIRECTORY, to=old)
        call("fchdir", self.root)
        for opened in (self.root, *self.mounted.values()):
            call("close", opened)
        call("close", self.scratch, pardon=errno.EBADF)
        if plan.enter == Enter.CHROOT:
            call("chroot", b".")
        else:
            call("pivot_root", b".", b".")
            call("fchdir", old)
            call("mount", b"none", b".", b"", syscalls.MS_REC | syscalls.MS_SLAVE, b"")
            call("umount2", b".", syscalls.MNT_DETACH)
        call("close", old)
        call("chdir", b"/")
        if plan.root_propagation:
            call("mount", b"none", b"/", b"", plan.root_propagation, b"")
        inside, found = self.script.register(), self.script.register()
        call("openat", AT_FDCWD, b"/", DIRECTORY, to=inside)
        how = struct.pack("<QQQ", O_PATH | os.O_CLOEXEC, 0, IN_ROOT)
        call("openat2", inside, text(plan.process.directory), how, len(how), to=found)
        call("close", found)
        if plan.read_only_root:
            self.set(inside, MOUNT_ATTR_RDONLY, 0)
        call("close", inside)
