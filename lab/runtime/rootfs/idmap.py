"""Mounts that the parent makes for a child, because the child may not: mapped to other ids, or out of its reach.

In a user namespace, root is an ordinary user of the host: it can't pass a folder of root's to what is to be bound
from there, and it may not map a mount's ids. So the parent clones each such mount, maps it where that is wanted,
and hands it over as a descriptor; the child only puts it in place (open_tree(2), mount_setattr(2), move_mount(2)).

An overlay's layers belong to the host's ids on disk, and are mapped one by one (overlayfs does that since Linux
5.19): root inside owns what root owns on disk. It is put together in a mount namespace that lasts as long as that.
Standard library only; see `lab.runtime.spawner.spawner`.
"""

from __future__ import annotations

import os

from lab.host import syscalls
from lab.host.identity import ownspace
from lab.host.syscalls import MOUNT_ATTR_IDMAP
from lab.runtime.channel import Channel, ChannelClosed
from lab.runtime.rootfs import mounts
from lab.runtime.rootfs import mounttrees as trees_of_mounts
from lab.shims import signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from lab.runtime.plan import Plan
    from lab.runtime.rootfs.mounts import Bind, FileSystem, Operation, OverlayRoot

APART = (syscalls.MS_REC | syscalls.MS_SLAVE,)
"""Made in the host's mount namespace, a copy of a mount that is shared is one of its peers, and what is mounted below
the one would be below the other. The child's own copies are slaves as well.
"""
SECBIT_NO_SETUID_FIXUP = 4  # capabilities(7): a change of ids leaves the capabilities alone


def trees(plan: Plan, pid: int) -> list[int]:
    """The mounts that the operations of ``plan`` expect, in their order, as descriptors; the caller's to close.

    ``pid`` is the child, its ids mapped by now. Raises OSError.
    """
    found: list[int] = []
    try:
        if plan.own_users:
            found.append(_root(plan, pid))
        for value in plan.mounts:
            operation = mounts.from_json(value)
            if isinstance(operation, mounts.Bind) and operation.tree:
                found.append(_bound(operation, pid))
            elif isinstance(operation, mounts.FileSystem) and operation.tree:
                found.append(_shown(operation))
    except BaseException:
        for descriptor in found:
            os.close(descriptor)
        raise
    return found


def _root(plan: Plan, pid: int) -> int:
    operation = mounts.from_json(plan.root)
    if isinstance(operation, mounts.DirectoryRoot):
        tree = syscalls.open_tree(operation.source, recursive=True)
        trees_of_mounts.dress(tree, propagation=(*APART, *trees_of_mounts.DEAF))
        return tree
    assert isinstance(operation, mounts.OverlayRoot)
    if ownspace.here() and plan.is_mapped_to_itself():
        return _made_by_another(operation, lambda: _unmapped(operation), syscalls.CLONE_NEWNS)
    namespace = _open(f"/proc/{pid}/ns/user")
    try:
        uid, gid = _host_id(f"/proc/{pid}/uid_map"), _host_id(f"/proc/{pid}/gid_map")
        return _made_by_another(operation, lambda: _overlay(operation, namespace, uid, gid), syscalls.CLONE_NEWNS)
    finally:
        os.close(namespace)


def _shown(operation: FileSystem) -> int:
    """A file system that shows what its maker sees. It's made by a process that is in the container's namespace."""

    def make() -> int:
        if operation.within:
            namespace = _open(operation.within)
            syscalls.setns(namespace, 0)
            os.close(namespace)
        return operation.made(operation.data, -1)

    return _made_by_another(operation, make)


def _bound(operation: Bind, pid: int) -> int:
    tree = operation.made(APART)
    if not operation.idmap:
        return tree
    if operation.uid_map:
        namespace = _namespace_with(operation.uid_map, operation.gid_map)
    else:
        namespace = _open(f"/proc/{pid}/ns/user")
    try:
        recursive = operation.idmap == "ridmap"
        syscalls.mount_setattr(tree, MOUNT_ATTR_IDMAP, 0, recursive=recursive, userns_fd=namespace)
    except OSError as error:
        os.close(tree)
        raise OSError(error.errno, f"{error.strerror}: its file system can't be mapped", operation.source) from error
    finally:
        os.close(namespace)
    return tree


def _namespace_with(uid_map: str, gid_map: str) -> int:
    """A user namespace of these maps. It takes a process to make one; the descriptor keeps it."""
    pid = syscalls.clone(syscalls.CLONE_NEWUSER | signal.SIGCHLD)
    if pid == 0:
        syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)
        while True:
            signal.pause()
    try:
        for name, text in (("uid_map", uid_map), ("gid_map", gid_map)):
            write(f"/proc/{pid}/{name}", text)
        return _open(f"/proc/{pid}/ns/user")
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def _made_by_another(operation: Operation, make: Callable[[], int], namespaces: int = 0) -> int:
    """The mount that a process in new ``namespaces`` has made, mounted nowhere."""
    ours, theirs = Channel.pair()
    pid = syscalls.clone(namespaces | signal.SIGCHLD)
    if pid == 0:
        try:
            theirs.send("MOUNTED", descriptors=[make()])
        except OSError as error:
            theirs.send("FAILED", number=error.errno or 0, text=error.strerror)
        finally:
            os._exit(0)
    theirs.close()
    try:
        message, descriptors = ours.receive()
    except ChannelClosed:
        raise OSError(0, "the process that makes it died", operation.describe()) from None
    finally:
        ours.close()
        os.waitpid(pid, 0)
    if not descriptors:
        raise OSError(int(str(message["number"])), str(message["text"]), operation.describe())
    return descriptors[0]


def _overlay(operation: OverlayRoot, namespace: int, uid: int, gid: int) -> int:
    """The overlay over mapped layers, by a process with a mount namespace of its own.

    Layers are given to overlayfs by short names in a scratch tmpfs: a page of options holds a thousand.

    The overlay keeps the credentials it was mounted with for what it does to the upper layer. They have to have a
    place in the map, so they are root's inside; the capabilities stay those of the host's root.
    """
    syscalls.mount("none", "/", "", syscalls.MS_REC | syscalls.MS_PRIVATE)
    common = os.path.commonpath([operation.upper, operation.work])  # upper and work have to share a mount
    syscalls.mount("tmpfs", operation.target, "tmpfs", 0, "mode=755,size=1m")
    os.chdir(operation.target)
    for name, source in [("w", common), *((str(place), lower) for place, lower in enumerate(operation.lower))]:
        tree = syscalls.open_tree(source, recursive=False)
        syscalls.mount_setattr(tree, MOUNT_ATTR_IDMAP, 0, userns_fd=namespace)
        os.mkdir(name)
        opened = os.open(name, syscalls.O_PATH | os.O_DIRECTORY)
        syscalls.move_mount(tree, opened)
    os.mkdir("merged")
    syscalls.prctl(syscalls.PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP)
    os.setgroups([])
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    lower = ":".join(str(place) for place in range(len(operation.lower)))
    upper, work = (os.path.join("w", os.path.relpath(each, common)) for each in (operation.upper, operation.work))
    syscalls.mount("overlay", "merged", "overlay", 0, mounts.overlay_options(lower, upper, work))
    return syscalls.open_tree("merged", recursive=False)


def _unmapped(operation: OverlayRoot) -> int:
    """The overlay as it is, by such a process: an ordinary user may not map what lies on another's file system."""
    syscalls.mount("none", "/", "", syscalls.MS_REC | syscalls.MS_PRIVATE)
    os.close(operation.mount())
    return syscalls.open_tree(operation.target, recursive=False)


def _host_id(path: str) -> int:
    """The host's id of root inside, from its uid_map or gid_map. Raises OSError if there is none."""
    with open(path) as file:
        for line in file:
            inside, outside, _ = map(int, line.split())
            if inside == 0:
                return outside
    raise OSError(0, "root of the user namespace is mapped to nobody")


def _open(path: str) -> int:
    return os.open(path, os.O_RDONLY | os.O_CLOEXEC)


def write(path: str, text: str) -> None:
    """One write(2), as the kernel's files want it."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, text.encode())
    except OSError as error:
        raise OSError(error.errno, error.strerror, path) from error
    finally:
        os.close(descriptor)
