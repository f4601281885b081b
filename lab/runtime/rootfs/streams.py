"""What has to become of the standard streams: a process may open them anew by name, and change nothing of the host's.

Standard library only; see `lab.runtime.spawner.spawner`.
"""

from __future__ import annotations

import errno
import os
import stat

from lab.host import syscalls
from lab.runtime.rootfs import mounttrees
from lab.shims import suppress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lab.runtime.plan import ProcessPlan

NULL = os.makedev(1, 3)


def give_pipes(process: ProcessPlan, stdio: list[int]) -> None:
    """Standard streams that are pipes become the user's, who may open them by their names then: /dev/stdout.

    In a user namespace the owner may have no number, and that is that (EPERM, EINVAL).
    """
    for stream in to_give(process, stdio):
        with suppress(PermissionError):
            try:
                os.fchown(stdio[stream], process.uid, -1)
            except OSError as error:
                if error.errno != errno.EINVAL:
                    raise


def to_give(process: ProcessPlan, stdio: list[int]) -> list[int]:
    """Which of the standard streams those are. Pipes alone, and those without a name: a file, a terminal or a FIFO of
    the host's stays whose it is.
    """
    found_pipes = []
    nameless = -1  # the file system of pipes, once somebody wants to know
    for stream, descriptor in enumerate(stdio[:3]):
        found = os.fstat(descriptor)
        if not stat.S_ISFIFO(found.st_mode) or found.st_uid == process.uid:
            continue
        if nameless < 0:
            read, write = os.pipe2(os.O_CLOEXEC)
            nameless = os.fstat(read).st_dev
            os.close(read)
            os.close(write)
        if found.st_dev == nameless:
            found_pipes.append(stream)
    return found_pipes


def take_own_null() -> None:
    """Where a standard stream is the host's null device, the container's: by the other one, root could change the
    mode of the host's file. What isn't a null device in the container's /dev is left alone.

    No O_NOFOLLOW, which would stay with the open file: criu(8) opens it anew by such a link as /proc has.
    """
    nulls = [number for number in range(3) if is_null(number)]
    if nulls:
        with suppress(OSError):
            flags = os.O_RDWR | os.O_NONBLOCK | os.O_NOCTTY
            own = syscalls.openat2(syscalls.AT_FDCWD, "/dev/null", flags, syscalls.RESOLVE_NO_SYMLINKS)
            if is_null(own):
                os.set_blocking(own, True)
                for number in nulls:
                    os.dup2(own, number, inheritable=True)
            os.close(own)


def guarded(stream: int) -> int:
    """For a container whose own device is not there yet: where the stream is the host's null device, the same on a
    read-only mount, by which its mode can't be changed.
    """
    if not is_null(stream):
        return stream
    tree = mounttrees.copy("/dev/null")
    mounttrees.dress(tree, (syscalls.MOUNT_ATTR_RDONLY, 0))
    try:
        return os.open(f"/proc/self/fd/{tree}", os.O_RDWR | os.O_CLOEXEC)
    finally:
        os.close(tree)


def is_null(descriptor: int) -> bool:
    """Whether it is a null device (null(4))."""
    found = os.fstat(descriptor)
    return stat.S_ISCHR(found.st_mode) and found.st_rdev == NULL
