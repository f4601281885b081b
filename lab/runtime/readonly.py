"""The interpreter on a mount that can't be written to (CVE-2019-5736).

A process of lab's that is about to become a container's shows there as ``/proc/PID/exe``, from its birth in the
container's pid namespace to its execve(2). Whoever may trace it (CAP_SYS_PTRACE) can open that file, and write to it
once nobody executes it any more: it must not be the host's interpreter on the host's own mount. So the interpreter
is executed from a copy of the mount that is read-only, and that is nowhere any more as soon as it is executed: nobody
can find it to make it writable. Standard library only; see `lab.runtime.spawner.spawner`.
"""

from __future__ import annotations

import os
import sys

from lab.shims import suppress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

INTERPRETER = getattr(sys, "_base_executable", "") or sys.executable


def interpreter() -> int:
    """The interpreter's file on such a mount, close-on-exec; /proc/self/fd with its number is to be executed.

    Raises OSError, EPERM for whoever may not mount.
    """
    from lab.host.syscalls import MOUNT_ATTR_NODEV, MOUNT_ATTR_RDONLY
    from lab.runtime.rootfs import mounttrees

    tree = mounttrees.copy(os.path.realpath(INTERPRETER))
    try:
        mounttrees.dress(tree, (MOUNT_ATTR_RDONLY | MOUNT_ATTR_NODEV, 0))
    except OSError:
        os.close(tree)
        raise
    return tree


class opened:  # noqa: N801
    """Within, `interpreter`, or -1 for whoever may not mount: no container of theirs has a root that could write to
    the host's files.
    """

    def __enter__(self) -> int:
        try:
            self._tree = interpreter()
        except PermissionError:
            self._tree = -1
        return self._tree

    def __exit__(self, *_error: object) -> None:
        if self._tree >= 0:
            os.close(self._tree)


def is_read_only() -> bool:
    """Whether this process was started so."""
    return bool(os.statvfs("/proc/self/exe").f_flag & os.ST_RDONLY)


def try_to_start_again(words: Sequence[str]) -> None:
    """The same, for whoever tries once more and tells of the failure then."""
    with suppress(OSError):
        start_again(words)


def start_again(words: Sequence[str], *, anew: bool = False) -> None:
    """Execute this very command again, from such a mount, unless that has happened: it returns then. ``anew``: in any
    case.

    ``words`` follow the interpreter's name. Raises OSError.
    """
    if anew or not is_read_only():
        tree = interpreter()
        os.execve(f"/proc/self/fd/{tree}", [INTERPRETER, *words], os.environ)
