"""Somebody who answers a container's system calls: the seccomp listener of SCMP_ACT_NOTIFY, handed to its agent.

The descriptor comes into being with the filter, in the process that is about to become the application, and that
process sends it: whoever started it may be gone by then. So the connection is made before the root is entered, the
only call behind the filter is sendmsg(2), and `lab.runtime.seccomp.compiler.flags` refuses a filter that does not
let it pass.

Sources: seccomp_unotify(2), runtime-spec config-linux.md "The Container Process State".
"""

from __future__ import annotations

import _socket
import fcntl
import os
import sys

from lab.host import syscalls
from lab.shims import dumps, suppress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

INT_BYTES = 4


def own_pid() -> int:
    """This process as the runtime numbers it, while the host's /proc is still mounted: in its own namespace it
    may be 1.
    """
    return int(os.readlink("/proc/self"))


def process_state(state: dict[str, object], pid: int, metadata: str) -> bytes:
    """The container process state as JSON: of process ``pid`` in the container of ``state`` (runtime.md "State")."""
    whole: dict[str, object] = {
        "ociVersion": state["ociVersion"],
        "fds": ["seccompFd"],
        "pid": pid,
        "state": {"pid": pid} | state,
    }
    if metadata:
        whole["metadata"] = metadata
    return dumps(whole).encode()


class Agent:
    """The connection for one handing over; a stream, close-on-exec. Made while the host's files are there."""

    def __init__(self, path: str, state: dict[str, object], metadata: str) -> None:
        """Raises OSError that names the path."""
        self.pid = own_pid()
        self._state = state
        self._metadata = metadata
        self._connection = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
        try:
            self._connection.connect(path)
        except OSError as error:
            self._connection.close()
            raise OSError(error.errno, f"seccomp listener: {error.strerror}", path) from error

    def fileno(self) -> int:
        return self._connection.fileno()

    def move_to(self, least: int) -> int:
        """Have a descriptor of ``least`` or more, and say which: those before it are wanted for others."""
        moved = fcntl.fcntl(self._connection.fileno(), fcntl.F_DUPFD_CLOEXEC, least)
        self._connection.close()
        self._connection = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM, 0, moved)
        return moved

    def prepare(self, program: bytes, flags: int) -> Callable[[], None]:
        """What installs the filter and sends its listener with the state; it raises OSError.

        The agent may be asked about what comes next, so nothing waits here for an answer of its. One sendmsg(2) may
        not take all of a long state; the descriptor goes with the first.
        """
        state = process_state(self._state, self.pid, self._metadata)
        install = syscalls.seccomp_filter(program, flags)

        def install_and_send() -> None:
            listener = install()
            rights = (_socket.SOL_SOCKET, _socket.SCM_RIGHTS, listener.to_bytes(INT_BYTES, sys.byteorder))
            sent = self._connection.sendmsg([state], [rights])
            while sent < len(state):
                sent += self._connection.sendmsg([state[sent:]])
            with suppress(OSError):
                os.close(self._connection.detach())

        return install_and_send


_agents: list[Agent] = []


def meet(wanted: dict[str, object]) -> None:
    """Connect to the agent of the process that this one is about to become; `agent` is it from then on.

    ``wanted`` is `lab.runtime.plan.ProcessPlan.agent`: "path", "metadata" and the container's "state", in which this
    process is the first unless it has a pid. One that is forked afterwards is told its own number: `Agent.pid`.
    """
    state = wanted["state"]
    assert isinstance(state, dict)
    _agents.append(Agent(str(wanted["path"]), state, str(wanted["metadata"])))


def agent() -> Agent:
    """Whom this process has met."""
    return _agents[-1]
