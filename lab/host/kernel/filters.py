"""The system call filters of a running process, read back from the kernel (PTRACE_SECCOMP_GET_FILTER in ptrace(2)).

The process is stopped for as long as that takes, a fraction of a millisecond, and goes on as if nothing had been.
"""

from __future__ import annotations

import errno
import os
from itertools import count
from pathlib import Path

from lab.errors import LabError
from lab.host import ctypes_shim as ctypes
from lab.host import syscalls

PTRACE_DETACH, PTRACE_SEIZE, PTRACE_INTERRUPT, PTRACE_SECCOMP_GET_FILTER = 17, 0x4206, 0x4207, 0x420C
WALL = 0x40000000
INSTRUCTION_BYTES = 8


def installed(pid: int) -> tuple[bytes, ...]:
    """The filters of the process's first thread, the oldest first, each an array of struct sock_filter.

    Empty for a process without any. Raises LabError where they can't be read: it takes CAP_SYS_ADMIN, a caller that
    is itself not filtered, and a kernel with CONFIG_CHECKPOINT_RESTORE.
    """
    try:
        syscalls.ptrace(PTRACE_SEIZE, pid)
        try:
            syscalls.ptrace(PTRACE_INTERRUPT, pid)
            os.waitpid(pid, WALL)
            return _read(pid)
        finally:
            syscalls.ptrace(PTRACE_DETACH, pid)
    except OSError as error:
        raise LabError(f"the filter of process {pid} can't be read back: {error.strerror or error}") from error


def _read(pid: int) -> tuple[bytes, ...]:
    found = []
    for index in count():
        try:
            length = syscalls.ptrace(PTRACE_SECCOMP_GET_FILTER, pid, index)
        except OSError as error:
            if error.errno == errno.ENOENT or (error.errno == errno.EINVAL and not is_filtered(pid)):
                break  # EINVAL: it has none at all
            raise
        code = ctypes.create_string_buffer(b"", length * INSTRUCTION_BYTES)
        syscalls.ptrace(PTRACE_SECCOMP_GET_FILTER, pid, index, ctypes.addressof(code))
        found.append(code.raw)
    return tuple(found)


def is_filtered(pid: int) -> bool:
    """Whether a filter is in force for a process (Seccomp in proc_pid_status(5))."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8", errors="replace")
    return "\nSeccomp:\t2\n" in status
