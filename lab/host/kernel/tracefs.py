"""The file system of the kernel's tracing, mounted nowhere, and what lab makes in it: see
`lab.host.tracing.recording`.

fsmount(2) gives its root as a descriptor: no path of the host leads to it, and it ends with the descriptor.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from lab.errors import LabError

OFF = (("tracing_on", b"0"), ("events/enable", b"0"), ("current_tracer", b"nop"))


def open_root() -> int:
    """The root directory of tracefs. Raises LabError where there is none, or this process may not have it."""
    from lab.host import syscalls

    try:
        context = syscalls.fsopen("tracefs")
        try:
            syscalls.fsconfig_create(context)
            return syscalls.fsmount(context)
        finally:
            os.close(context)
    except OSError as error:
        if error.errno == errno.ENODEV:
            raise LabError("this kernel has no tracefs", hint="one with CONFIG_FTRACE has") from error
        raise LabError(f"tracefs can't be opened: {os.strerror(error.errno or 0)}") from error


def exists(name: str) -> bool:
    """Whether there is an instance of that name."""
    with suppress(LabError), _opened() as root:
        return os.access(f"instances/{name}", os.F_OK, dir_fd=root)
    return False


def remove(name: str) -> None:
    """Switch an instance off and remove it, if it is there. Raises OSError while somebody reads from it."""
    with _opened() as root, suppress(FileNotFoundError):
        for file, text in OFF:
            with suppress(OSError):
                descriptor = os.open(f"instances/{name}/{file}", os.O_WRONLY | os.O_CLOEXEC, dir_fd=root)
                try:
                    os.write(descriptor, text)
                finally:
                    os.close(descriptor)
        os.rmdir(f"instances/{name}", dir_fd=root)


@contextmanager
def _opened() -> Iterator[int]:
    root = open_root()
    try:
        yield root
    finally:
        os.close(root)
