"""What has to become of the standard streams: a process may open them anew by name, and change nothing of the host's.

Standard library only; see `lab.runtime.spawner`.
"""

from __future__ import annotations

import errno
import os
import stat

from lab.lean import suppress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lab.runtime.plan import ProcessPlan

NULL = os.makedev(1, 3)


def give_pipes(process: ProcessPlan, stdio: list[int]) -> None:
    """Standard streams that are pipes become the user's, who may open them by their names then: /dev/stdout.

    Pipes alone, and those without a name: a file, a terminal or a FIFO of the host's stays whose it is. In a user
    namespace the owner may have no number, and that is that (EPERM, EINVAL).
    """
    nameless = -1  # the file system of pipes, once somebody wants to know
    for descriptor in stdio[:3]:
        found = os.fstat(descriptor)
        if not stat.S_ISFIFO(found.st_mode) or found.st_uid == process.uid:
            continue
        if nameless < 0:
            read, write = os.pipe2(os.O_CLOEXEC)
            nameless = os.fstat(read).st_dev
            os.close(read)
            os.close(write)
        if found.st_dev == nameless:
            with suppress(PermissionError):
                try:
                    os.fchown(descriptor, process.uid, -1)
                except OSError as error:
                    if error.errno != errno.EINVAL:
                        raise


def take_own_null(count: int) -> None:
    """Where one of the first descriptors is the host's null device, the container's: by the other one, root could
    change the mode of the host's file. What isn't a null device in the container's /dev is left alone.
    """
    streams = [number for number in range(count) if is_null(number)]
    if streams:
        with suppress(OSError):
            own = os.open("/dev/null", os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
            if is_null(own):
                os.set_blocking(own, True)
                for number in streams:
                    os.dup2(own, number, inheritable=True)
            os.close(own)


def is_null(descriptor: int) -> bool:
    """Whether it is a null device (null(4))."""
    found = os.fstat(descriptor)
    return stat.S_ISCHR(found.st_mode) and found.st_rdev == NULL
