"""Terminals as the host's side holds them: the masters of pseudo-terminals that were made inside an instance."""

from __future__ import annotations

import os
import socket
import termios
from array import array

from lab.errors import LaunchError
from lab.model import TerminalSize

SEND_SECONDS = 10.0


def receive_master(end: socket.socket) -> int:
    """The master that lab's helper sends over ``end`` (inside/terminal.c), non-blocking. Raises LaunchError.

    Who sends it is inside: anything that is not a terminal is refused.
    """
    end.settimeout(SEND_SECONDS)
    room = socket.CMSG_SPACE(array("i").itemsize)
    try:
        _, ancillary, _, _ = end.recvmsg(1, room, socket.MSG_CMSG_CLOEXEC)
    except OSError as error:
        raise LaunchError(f"no terminal came out of the instance: {error}", exit_code=126) from error
    descriptors = array("i")
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            descriptors.frombytes(data[: len(data) // descriptors.itemsize * descriptors.itemsize])
    if len(descriptors) == 1 and os.isatty(descriptors[0]):
        os.set_blocking(descriptors[0], False)
        return descriptors[0]
    for descriptor in descriptors:
        os.close(descriptor)
    raise LaunchError("no terminal came out of the instance", exit_code=126)


def set_size(terminal: int, size: TerminalSize) -> None:
    """The kernel tells the foreground process by SIGWINCH. Nothing if the terminal has gone."""
    try:
        termios.tcsetwinsize(terminal, (size.rows, size.columns))
    except (OSError, termios.error):
        pass


def size_of(terminal: int) -> TerminalSize:
    """How large a terminal is; the usual 24 rows of 80 where it does not know."""
    try:
        rows, columns = termios.tcgetwinsize(terminal)
    except (OSError, termios.error):
        return TerminalSize()
    return TerminalSize(rows=rows, columns=columns) if rows and columns else TerminalSize()


def as_option(size: TerminalSize) -> list[str]:
    """How lab's helper is told to make a terminal (inside/init.c)."""
    return ["--terminal", f"{size.rows}x{size.columns}"]
