"""A process stopped at each of its system calls, so that a test can end it at any of them (ptrace(2))."""

from __future__ import annotations

import ctypes
import os
import signal
from collections.abc import Callable
from contextlib import suppress

PEEKUSER, DETACH, SYSCALL, SEIZE, INTERRUPT = 3, 17, 24, 0x4206, 0x4207
ORIG_RAX_OFFSET = 15 * 8  # in struct user, of x86-64
ALL = 0x40000000  # __WALL
POLL_SECONDS = 0.0005

libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p)
libc.ptrace.restype = ctypes.c_long


def ptrace(request: int, pid: int, address: int = 0, data: int = 0) -> int:
    """Raises OSError."""
    ctypes.set_errno(0)
    result = int(libc.ptrace(request, pid, address, data))
    if result == -1 and ctypes.get_errno():
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


class Traced:
    """A process that is stopped, from here on; all of it from one thread."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        ptrace(SEIZE, pid)
        ptrace(INTERRUPT, pid)
        os.waitpid(pid, ALL)

    def go_on_to_call(self, until: Callable[[], bool]) -> int | None:
        """To the next entry of a system call, or exit: that call's number. None if there is none ``until`` then."""
        ptrace(SYSCALL, self.pid)
        while not until():
            found, _ = os.waitpid(self.pid, ALL | os.WNOHANG)
            if found:
                return ptrace(PEEKUSER, self.pid, ORIG_RAX_OFFSET)
            signal.sigtimedwait([], POLL_SECONDS)
        return None

    def kill(self) -> None:
        """SIGKILL, and its parent hears of it."""
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, ALL)

    def leave_stopped(self) -> None:
        """As SIGSTOP leaves it."""
        ptrace(DETACH, self.pid, 0, signal.SIGSTOP)

    def let_go(self) -> None:
        """It goes on."""
        with suppress(ProcessLookupError):
            ptrace(INTERRUPT, self.pid)
            os.waitpid(self.pid, ALL)
            ptrace(DETACH, self.pid)
