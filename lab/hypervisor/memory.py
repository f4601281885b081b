"""The memory of a machine that is saved for others to map: a file that is in memory itself, and nowhere else.

    boot     the machine that will be saved has it as its RAM, shared: what the guest writes is in the file
    seal     once its QEMU has ended nobody can write to it, shrink it or let it grow (fcntl(2), F_SEAL_WRITE)
    restore  each QEMU maps it privately: a page is everybody's until a guest writes to it, and then that guest's own

QEMU opens such a file for writing even where it maps it privately (before 8.2 there is no other way). The seal is the
kernel's, so a QEMU that was taken over has a descriptor by which it can change nothing of what the others go on from.

Source: memfd_create(2); qemu(1), memory-backend-file; and QEMU's migration capability x-ignore-shared, which leaves
memory that is shared out of the stream.
"""

from __future__ import annotations

import errno
import fcntl
import os
import time
import weakref

from lab.errors import LabError

SEALS = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
SEAL_SECONDS = 10.0  # for a QEMU that was killed to give up what it has mapped
STEP_SECONDS = 0.01


class SavedMemory:
    """``size_bytes`` of RAM in a file without a name, which lasts as long as this object or a process that has it."""

    def __init__(self, size_bytes: int) -> None:
        """Raises OSError."""
        self._descriptor = os.memfd_create("lab-machine", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        weakref.finalize(self, os.close, self._descriptor)
        os.ftruncate(self._descriptor, size_bytes)

    @property
    def path(self) -> str:
        """By which a process that may look into this one opens it (proc_pid_fd(5))."""
        return f"/proc/{os.getpid()}/fd/{self._descriptor}"

    @property
    def held_bytes(self) -> int:
        """What of it was ever written, and so is in the host's memory."""
        return os.fstat(self._descriptor).st_blocks * 512

    def seal(self) -> None:
        """Let nobody change it from now on. Raises LabError while somebody has it mapped for writing."""
        deadline = time.monotonic() + SEAL_SECONDS
        while True:
            try:
                fcntl.fcntl(self._descriptor, fcntl.F_ADD_SEALS, SEALS)
            except OSError as error:
                if error.errno != errno.EBUSY or time.monotonic() > deadline:
                    raise LabError(f"a saved machine's memory can't be sealed: {error.strerror}") from error
                time.sleep(STEP_SECONDS)
            else:
                return
