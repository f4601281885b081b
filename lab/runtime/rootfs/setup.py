"""What a container is surrounded by, made by its first process: the steps of `lab.runtime.init` up to ISOLATED.

Standard library only; see `lab.runtime.spawner.spawner`.
"""

from __future__ import annotations

import _socket
import errno
import fcntl
import os
import struct
import sys

from lab.host import syscalls
from lab.runtime.plan import Enter, Plan, ProcessPlan, Progress
from lab.runtime.rootfs import mounts, rootpath

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lab.runtime.channel import Channel
    from lab.runtime.hooks import Spawn

SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 0x1  # netdevice(7)


def import_no_more() -> None:
    """From here on files are strangers': a module that is not there yet is missed, and never read from them."""
    sys.meta_path.clear()


def join_namespaces(plan: Plan) -> None:
    if plan.own_users:
        os.setresgid(0, 0, 0)
        os.setresuid(0, 0, 0)
    # All paths are the runtime's: they are opened before a mount namespace is entered where they may mean another.
    opened = [(os.open(str(path), os.O_RDONLY | os.O_CLOEXEC), int(str(flag))) for path, flag in plan.joins]
    if any(flag & syscalls.CLONE_NEWNS for _, flag in opened):
        import_no_more()
    for descriptor, flag in opened:
        syscalls.setns(descriptor, flag)
        os.close(descriptor)
    if plan.cgroup_namespace:
        syscalls.unshare(syscalls.CLONE_NEWCGROUP)
    if plan.loopback_up:
        bring_loopback_up()


def bring_loopback_up() -> None:
    """A new network namespace's loopback is down."""
    any_socket = _socket.socket(_socket.AF_INET, _socket.SOCK_DGRAM)
    request = struct.pack("16sH14x", b"lo", 0)
    flags = struct.unpack("16sH14x", fcntl.ioctl(any_socket, SIOCGIFFLAGS, request))[1]
    fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", flags | IFF_UP))
    any_socket.close()


def mount_root(plan: Plan, place: int, trees: list[int]) -> rootpath.Root:
    """From here on nothing mounted shows on the host; what the host mounts shows at most in what is bound of it.

    Unless linux.rootfsPropagation says otherwise. But whatever that says, the root itself is ours alone. Without a
    mount namespace of its own, nothing is mounted at all.
    """
    if plan.enter == Enter.IN_PLACE:
        return rootpath.Root(place)
    syscalls.mount("none", "/", "", plan.propagation)
    if plan.own_users:
        syscalls.move_mount(trees[0], place)
        os.close(place)
        return rootpath.Root(trees[0], trees[1:])
    operation = mounts.from_json(plan.root)
    assert isinstance(operation, mounts.OverlayRoot | mounts.DirectoryRoot)
    if plan.propagation & syscalls.MS_SHARED:
        make_private_around(operation.target)
    return rootpath.Root(operation.mount(), trees)


def make_private_around(place: str) -> None:
    """The mount that ``place`` lies in: what is mounted there then shows nowhere else."""
    while True:
        try:
            syscalls.mount("none", place, "", syscalls.MS_PRIVATE)
            return
        except OSError as error:
            if error.errno != errno.EINVAL or place == "/":  # EINVAL: not a mount point
                raise
        place = os.path.dirname(place)


def apply(operations: list[dict[str, object]], root: rootpath.Root, progress: Progress) -> None:
    for value in operations:
        operation = mounts.from_json(value)
        try:
            operation.apply(root)
        except OSError as error:
            about = f"{os.fsdecode(error.filename)}: " if error.filename else ""
            raise OSError(error.errno, f"{about}{error.strerror or error}", operation.describe()) from error
        progress.did(operation.describe)


def set_sysctls(plan: Plan, root: rootpath.Root) -> None:
    """Through the container's own /proc, which shows its own namespaces."""
    for name, value in plan.sysctls.items():
        opened = root.open(f"/proc/sys/{name.replace('.', '/')}", flags=os.O_WRONLY)
        try:
            os.write(opened, value.encode())
        finally:
            os.close(opened)


def run_hooks(plan: Plan, channel: Channel) -> None:
    """Those of the parent's side first, while this waits; then those that run here but are the host's programs."""
    from lab.runtime import hooks

    if "prestart" in plan.hooks or "createRuntime" in plan.hooks:
        channel.send("MOUNTED")
        channel.expect("HOOKS_RUN")
    hooks.run("createContainer", plan.hooks.get("createContainer", ()), plan.state | {"pid": os.getpid()})


def run_start_hooks(plan: Plan, spawn: Spawn) -> None:
    """Those that run here and are the container's programs: they may no more than the application."""
    from lab.runtime import hooks

    state = plan.state | {"pid": os.getpid(), "status": "created"}
    hooks.run("startContainer", plan.hooks["startContainer"], state, spawn)


def open_console(
    process: ProcessPlan, root: rootpath.Root, channel: Channel, stdio: list[int], *, bind: bool
) -> list[int]:
    """A terminal in place of the first three of ``stdio``, at once: who waits to be started holds none of others.

    ``bind`` makes it /dev/console too: of the container's first process, not of one beside it.
    """
    from lab.runtime.rootfs import console

    terminal = console.open_inside(root, process, channel)
    if bind:
        console.bind_to_dev_console(root, terminal)
    for number in range(3):
        os.dup2(terminal, number)
    os.close(terminal)
    return [0, 1, 2, *stdio[3:]]


def enter_root(plan: Plan, root: rootpath.Root) -> None:
    """The old root is made a slave before it is unmounted: that must not reach those who share its mounts."""
    if plan.enter == Enter.STAY:
        root.close()
        return
    if plan.enter == Enter.MOVE:
        from lab.runtime.rootfs import nopivot  # few ask for it

        nopivot.hide_the_hosts(plan.mount_point)
    import_no_more()
    old = os.open("/", syscalls.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    os.fchdir(root.fileno())
    root.close()
    if plan.enter in (Enter.CHROOT, Enter.IN_PLACE):
        os.chroot(".")
    elif plan.enter == Enter.MOVE:
        syscalls.mount(".", "/", "", syscalls.MS_MOVE)
        os.chroot(".")
    else:
        syscalls.pivot_root(".", ".")
        os.fchdir(old)
        syscalls.mount("none", ".", "", syscalls.MS_REC | syscalls.MS_SLAVE)
        syscalls.umount2(".", syscalls.MNT_DETACH)
    os.close(old)
    os.chdir("/")
    if plan.root_propagation:
        syscalls.mount("none", "/", "", plan.root_propagation)
    make_working_directory(plan.process.directory)
    if plan.read_only_root:
        rootpath.make_read_only("/")


def make_working_directory(path: str) -> None:
    """If it is missing, while the root may still be written to."""
    try:
        rootpath.make_directory(path)
    except OSError as error:
        reason = os.strerror(error.errno or 0)
        raise OSError(error.errno, f"the working directory can't be made: {reason}", path) from error


def name_host(plan: Plan) -> None:
    if plan.hostname:
        syscalls.sethostname(plan.hostname)
    if plan.domainname:
        syscalls.setdomainname(plan.domainname)
