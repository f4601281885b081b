"""Somebody's descriptors on one side, a process on the host's kernel on the other.

The process never gets the descriptors themselves: a terminal of the host's would let it type there (TIOCSTI,
ioctl_tty(2)), a file could be opened again for more (proc(5), /proc/pid/fd). It gets pipes, or a terminal that lab's
helper makes inside.
"""

from __future__ import annotations

import os
import socket
from contextlib import ExitStack
from typing import Protocol

from lab.host import waits
from lab.host.closing import Closing
from lab.host.execution import terminals
from lab.host.execution.contract import Execution
from lab.host.execution.relay import Lane
from lab.model import TerminalSize


class Begun(Protocol):
    """A process in a container. The methods are those of `lab.runtime.launcher.execs.Exec`."""

    def wait(self, timeout_seconds: float | None = None) -> int | None: ...
    def signal(self, number: int) -> None: ...
    def close(self) -> None: ...


class Streams(Closing):
    """Makes what a process is given; then, once `handed_over`, copies. A context manager."""

    def __init__(self) -> None:
        self._given = ExitStack()  # the process's ends, ours until it has copies
        self._opened = ExitStack()
        self._towards: list[Lane] = []
        self._from: list[Lane] = []
        self._socket: socket.socket | None = None
        self._master = -1
        self._beyond: tuple[int | None, int] = (None, -1)

    def input(self, source: int | None) -> int:
        """What the process reads; None is /dev/null."""
        if source is None:
            return self._give(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
        read, write = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(write, False)
        self._towards.append(Lane(source, write, name="lab-stdin", owned=[write]))
        return self._give(read)

    def output(self, sink: int) -> int:
        """What the process writes."""
        read, write = os.pipe2(os.O_CLOEXEC)
        self._from.append(Lane(read, sink, name="lab-stdout", owned=[read]))
        return self._give(write)

    def terminal(self, source: int | None, sink: int) -> list[int]:
        """The three streams of lab's helper, over whose first it will send the terminal it makes."""
        ours, theirs = socket.socketpair()
        self._socket = self._opened.enter_context(ours)
        self._given.callback(theirs.close)
        self._beyond = (source, os.dup(sink))
        self._opened.callback(os.close, self._beyond[1])
        null = self._give(os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC))
        return [theirs.fileno(), null, null]

    def _give(self, descriptor: int) -> int:
        self._given.callback(os.close, descriptor)
        return descriptor

    def handed_over(self) -> None:
        """The process has been executed. Raises LaunchError when no terminal came out of it."""
        self._given.close()
        if self._socket is not None:
            source, sink = self._beyond
            self._master = terminals.receive_master(self._socket)
            self._opened.callback(os.close, self._master)
            self._from.append(Lane(self._master, sink, name="lab-terminal", discard=True))
            if source is not None:
                self._towards.append(Lane(source, self._master, name="lab-keyboard"))

    def resize(self, size: TerminalSize) -> None:
        """Give the terminal, if there is one, another size."""
        if self._master >= 0:
            terminals.set_size(self._master, size)

    def drain(self, timeout_seconds: float | None = None) -> bool:
        """The process has ended: whether all that it wrote has been passed on in time.

        What a child that it left behind goes on writing is nobody's.
        """
        deadline = waits.deadline_of(timeout_seconds)
        return all(lane.drain(waits.left(deadline)) for lane in self._from)

    def close(self) -> None:
        """Stop copying. Idempotent."""
        self._given.close()
        for lane in (*self._towards, *self._from):
            lane.stop()
        self._towards, self._from, self._master = [], [], -1
        self._opened.close()


class HostExecution(Execution):
    """A command in a container of the host's kernel."""

    def __init__(self, begun: Begun, streams: Streams) -> None:
        self._begun = begun
        self._streams = streams

    def wait(self, timeout_seconds: float | None = None) -> int | None:
        deadline = waits.deadline_of(timeout_seconds)
        code = self._begun.wait(timeout_seconds)
        return code if code is not None and self._streams.drain(waits.left(deadline)) else None

    def signal(self, number: int) -> None:
        self._begun.signal(number)

    def resize(self, size: TerminalSize) -> None:
        self._streams.resize(size)

    def close(self) -> None:
        self._begun.close()
        self._streams.close()
