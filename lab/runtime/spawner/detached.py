"""What the spawner keeps alive when its client dies: a detached instance, until it ends or a new client comes.

The client is the instance's supervisor. While it lives the spawner only prepares: it writes down the exit code,
and listens where a new supervisor would look for it. See `lab.runtime.spawner.spawner`.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import time

from lab.shims import suppress

SOCKET = "spawner"  # in the session's folder, whose path is short


class DetachedInstance:
    """One instance. Descriptors are this object's own.

    ``identity`` is the child that is the instance; it may be no child at all: a machine's VMM, another runtime's
    container. ``held`` is what must not be closed as long as the instance lives: its network. ``locks`` are the
    files whose lock it shares until then: the image's layers.
    """

    def __init__(
        self, identity: str, first: int, held: list[int], *, locks: list[str], socket_path: str, exit_path: str
    ) -> None:
        self.identity = identity
        self.first = os.dup(first)  # a pidfd of the process whose end is the instance's
        self.held = [os.dup(descriptor) for descriptor in held]
        self.locked = [descriptor for path in locks if (descriptor := _share(path)) >= 0]
        self.exit_path = exit_path
        with suppress(FileNotFoundError):
            os.unlink(socket_path)  # a dead spawner's
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.listener.bind(socket_path)
        os.chmod(socket_path, 0o600)
        self.listener.listen(1)
        self.exit: dict[str, object] | None = None

    def close(self) -> None:
        """Let go of everything; another takes its place."""
        self.listener.close()
        for descriptor in (self.first, *self.held, *self.locked):
            os.close(descriptor)

    def ended(self, code: int | None) -> None:
        """Write down the exit code, None where nobody can know it; the first one counts."""
        if self.exit is not None:
            return
        self.exit = {"code": code, "ended": time.time()}
        unfinished = f"{self.exit_path}.{os.getpid()}"
        try:
            with os.fdopen(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
                json.dump(self.exit, file)
            os.rename(unfinished, self.exit_path)
        except OSError:  # its record was removed, or the disk is full: the spawner has others to look after
            pass


def _share(path: str) -> int:
    """A descriptor with a shared lock, which who asked for it has too; -1 when that is just changing."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return -1
    return descriptor
