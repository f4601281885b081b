"""What the container's process says on its way to execve(2), and what becomes of it when it fails."""

from __future__ import annotations

import _socket
import errno
import os
import sys

from lab.errors import LaunchError, UsageError
from lab.runtime.channel import ChannelClosed
from lab.shims import suppress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lab.runtime.channel import Channel, Message
    from lab.runtime.container import Started
    from lab.shims import ExitStack

NAMED_BY_CALLERS = {errno.ENOENT: "executable file not found in $PATH", errno.EACCES: "permission denied"}
"""Podman and containerd tell 127 and 126 from other failures by these words."""


class Terminal:
    """Who gets the master of the container's terminal: a manager, at its socket, or this very command."""

    def __init__(self, wanted: bool, socket_path: str, undo: ExitStack, *, detached: bool) -> None:
        """Raises UsageError for a socket without a terminal, and for a terminal that nobody would hold."""
        if socket_path and not wanted:
            raise UsageError("--console-socket means nothing without process.terminal")
        if wanted and detached and not socket_path:
            raise UsageError("process.terminal is true, and nobody is there to hold it", hint="--console-socket PATH")
        self._socket_path = socket_path
        self._undo = undo
        self.master = -1

    def take(self, descriptors: list[int]) -> None:
        """The master has arrived. Raises OSError if the manager doesn't take it."""
        (master,) = descriptors
        if not self._socket_path:
            from lab.runtime.oci.waiting import terminal

            terminal.resize(master)  # before the application asks
            self.master = master
            self._undo.callback(os.close, master)
            return
        manager = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
        try:
            manager.connect(self._socket_path)
            right = (_socket.SOL_SOCKET, _socket.SCM_RIGHTS, master.to_bytes(4, sys.byteorder))
            manager.sendmsg([b"/dev/ptmx"], [right])
        finally:
            manager.close()
            os.close(master)


def expect(started: Started, name: str, terminal: Terminal | None = None) -> None:
    """The next thing it says must be ``name``. Raises LaunchError for its last words, or for silence."""
    while True:
        try:
            message, descriptors = started.channel.receive()
        except ChannelClosed:
            raise LaunchError("the container's first process was killed") from None
        if message["message"] == "FAILED":
            raise failure(message)
        if message["message"] == name:
            return
        if message["message"] != "CONSOLE" or terminal is None:
            raise LaunchError(f"expected {name}, received {message['message']}")
        terminal.take(descriptors)


def until_executed(channel: Channel, terminal: Terminal | None = None) -> None:
    """Until execve(2) has closed its end of the channel. Raises LaunchError if it came to something else."""
    executing = False
    while True:
        try:
            message, descriptors = channel.receive()
        except ChannelClosed:
            if executing:
                return
            raise LaunchError("the process was killed before it could execute anything") from None
        if message["message"] == "FAILED":
            raise failure(message)
        if message["message"] == "CONSOLE" and terminal is not None:
            terminal.take(descriptors)
        executing = executing or message["message"] == "EXECUTING"


def failure(message: Message) -> LaunchError:
    """FAILED as an error that names the step."""
    step, number, text = message["step"], message["number"], str(message["text"])
    if step == "execve" and number in NAMED_BY_CALLERS:
        program = text.removesuffix(f": {os.strerror(int(str(number)))}")
        text = f'exec: "{program}": {NAMED_BY_CALLERS[int(str(number))]}'
    return LaunchError(f"{step}: {text}")


def end(started: Started) -> None:
    """Kill it, and see it dead."""
    started.kill()
    with suppress(ChildProcessError):
        os.waitpid(started.pid, 0)
    started.close()
