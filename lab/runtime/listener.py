"""Somebody who answers a container's system calls: the seccomp listener of SCMP_ACT_NOTIFY, handed to its agent.

The descriptor comes into being with the filter, in the process that is about to become the application, and that
process sends it: whoever started it may be gone by then. So the connection is made before the root is entered, the
only call behind the filter is sendmsg(2), and `lab.runtime.seccomp.flags` refuses a filter that does not let it pass.

Sources: seccomp_unotify(2), runtime-spec config-linux.md "The Container Process State".
"""

from __future__ import annotations

import _socket
import os
import sys

from lab.host import syscalls
from lab.lean import dumps, suppress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

INT_BYTES = 4


def own_pid() -> int:
    """This process as the runtime numbers it, while the host's /proc is still mounted: in its own namespace it
    may be 1.
    """
    return int(os.readlink("/proc/self"))


def process_state(
    *,
    oci_version: str,
    identity: str,
    status: str,
    pid: int,
    container_pid: int,
    bundle: str,
    annotations: Mapping[str, str],
    metadata: str,
) -> bytes:
    """The container process state as JSON. ``pid`` is the one that is filtered, ``container_pid`` the first."""
    state: dict[str, object] = {
        "ociVersion": oci_version,
        "id": identity,
        "status": status,
        "pid": container_pid,
        "bundle": bundle,
    }
    if annotations:
        state["annotations"] = dict(annotations)
    whole: dict[str, object] = {"ociVersion": oci_version, "fds": ["seccompFd"], "pid": pid, "state": state}
    if metadata:
        whole["metadata"] = metadata
    return dumps(whole).encode()


def connect(path: str) -> _socket.socket:
    """The agent's end of this one handing over; a stream, close-on-exec. Raises OSError that names the path."""
    connection = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    try:
        connection.connect(path)
    except OSError as error:
        connection.close()
        raise OSError(error.errno, f"seccomp listener: {error.strerror}", path) from error
    return connection


def install(program: bytes, flags: int, connection: _socket.socket, state: bytes) -> None:
    """Install the filter, and send its listener with ``state``. Raises OSError.

    The agent may be asked about what comes next, so nothing waits here for an answer of its. One sendmsg(2) may
    not take all of a long state; the descriptor goes with the first.
    """
    listener = syscalls.seccomp_set_filter(program, flags)
    rights = (_socket.SOL_SOCKET, _socket.SCM_RIGHTS, listener.to_bytes(INT_BYTES, sys.byteorder))
    sent = connection.sendmsg([state], [rights])
    while sent < len(state):
        sent += connection.sendmsg([state[sent:]])
    with suppress(OSError):
        os.close(connection.detach())
