"""What commands ask of a supervisor: named messages over a Unix socket, as `lab.runtime.channel` has them.

A connection is one conversation: one request, its answers, the end. Descriptors travel with a message (unix(7),
SCM_RIGHTS), so that the output of a command goes straight to the terminal or pipe of whoever asked for it.

request                                                          answers
EXEC argv environment directory user terminal + stdin stdout stderr   STARTED, then EXITED code
    … while it runs:  SIGNAL number,  RESIZE rows columns;  closing the connection kills the command
SIGNAL number                                                    DONE
RESIZE rows columns                                              DONE
REACH port                                                       REACHED served, a bool: whether a connect to that TCP
                                                                 port of the instance's own is accepted now
STOP grace_seconds                                               EXITED code, when nothing of the instance is left;
                                                                 FAILED, when it has ended and something is
WAIT                                                             EXITED code, when it has ended and was cleaned up

``terminal`` is null or [rows, columns]. ``code`` is null where it can't be known. Whatever goes wrong is answered
by FAILED with ``error``, the fields of a LabError.
"""

from __future__ import annotations

import os
import socket
from enum import StrEnum
from pathlib import Path

from lab.errors import LabError, LaunchError
from lab.runtime.channel import Channel, Message

SOCKET = "control"  # in the session's folder, whose path is short
BACKLOG = 64


class Request(StrEnum):
    """What a client says first. SIGNAL may follow EXEC, too, and RESIZE follows nothing else."""

    EXEC = "EXEC"
    SIGNAL = "SIGNAL"
    RESIZE = "RESIZE"
    REACH = "REACH"
    STOP = "STOP"
    WAIT = "WAIT"


class Answer(StrEnum):
    """What a supervisor says: to a request, and to whoever started it."""

    STARTED = "STARTED"
    EXITED = "EXITED"
    DONE = "DONE"
    REACHED = "REACHED"
    FAILED = "FAILED"


def listen(path: Path) -> socket.socket:
    """The supervisor's end, for root alone. What a dead one left at ``path`` is replaced."""
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    previous = os.umask(0o177)
    try:
        listener.bind(str(path))
    finally:
        os.umask(previous)
    listener.listen(BACKLOG)
    return listener


def connect(path: Path) -> Channel:
    """A conversation with the supervisor that listens at ``path``. Raises OSError when none does."""
    end = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        end.connect(str(path))
    except OSError:
        end.close()
        raise
    channel = Channel(end)
    channel.allow_large_messages()
    return channel


def encode_error(error: LabError) -> dict[str, object]:
    """An error as a message carries it."""
    return {
        "message": error.message,
        "hint": error.hint,
        "detail": error.detail,
        "exit_code": error.exit_code,
    }


def decode_error(message: Message) -> LabError:
    """The error of a FAILED message; it has the same words and exit code here as there."""
    fields = message["error"]
    assert isinstance(fields, dict)
    return LaunchError(
        str(fields["message"]),
        hint=str(fields["hint"]),
        detail=str(fields["detail"]),
        exit_code=int(fields["exit_code"]),
    )
