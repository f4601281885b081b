"""Named messages between two processes, with descriptors where they are needed (unix(7)).

A message is one packet of a SOCK_SEQPACKET pair: a JSON object whose ``message`` is its name. Packets keep
their borders, arrive in order, and the end of the peer is an end of file, not a time-out.
Standard library only; see `lab.runtime.spawner`.
"""

from __future__ import annotations

import json
import socket
from array import array
from collections.abc import Sequence
from contextlib import suppress

LARGEST_MESSAGE_BYTES = 1 << 20
MOST_DESCRIPTORS = 8
INT_BYTES = 4
_SO_SNDBUFFORCE = 32  # asm-generic/socket.h; past net.core.wmem_max, for root

Message = dict[str, object]


class ChannelClosed(Exception):
    """The peer has gone, or has closed its end."""


class Channel:
    """One end. Both ends may send at any time; one reader and one writer per end."""

    def __init__(self, end: socket.socket) -> None:
        self._socket = end

    @classmethod
    def pair(cls) -> tuple[Channel, Channel]:
        """Two connected ends, both close-on-exec."""
        first, second = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        return cls(first), cls(second)

    @classmethod
    def inherited(cls, descriptor: int) -> Channel:
        """The end that a parent left open as ``descriptor``."""
        return cls(socket.socket(fileno=descriptor))

    def allow_large_messages(self) -> None:
        """Let this end send messages up to LARGEST_MESSAGE_BYTES, or what the system allows without root."""
        for option in (socket.SO_SNDBUF, _SO_SNDBUFFORCE):
            with suppress(PermissionError):
                self._socket.setsockopt(socket.SOL_SOCKET, option, LARGEST_MESSAGE_BYTES)

    def fileno(self) -> int:
        """For poll(2)."""
        return self._socket.fileno()

    def send(self, name: str, *, descriptors: Sequence[int] = (), **fields: object) -> None:
        """Send one message. Raises ChannelClosed when nobody is left to read it."""
        packet = json.dumps({"message": name, **fields}).encode()
        try:
            socket.send_fds(self._socket, [packet], list(descriptors))
        except (BrokenPipeError, ConnectionResetError) as error:
            raise ChannelClosed from error

    def receive(self) -> tuple[Message, list[int]]:
        """The next message and its descriptors, close-on-exec; they are the caller's to close.

        Raises ChannelClosed at the end of file.
        """
        try:
            packet, descriptors = self._packet()
        except ConnectionResetError:
            # The peer went without reading all that was sent to it. This is told once, ahead of its last words.
            packet, descriptors = self._packet()
        if not packet:
            raise ChannelClosed
        message: Message = json.loads(packet)
        return message, descriptors

    def _packet(self) -> tuple[bytes, list[int]]:
        """socket.recv_fds would drop the flag that makes descriptors close-on-exec (before Python 3.12)."""
        room = socket.CMSG_LEN(MOST_DESCRIPTORS * INT_BYTES)
        packet, ancillary, _, _ = self._socket.recvmsg(LARGEST_MESSAGE_BYTES, room, socket.MSG_CMSG_CLOEXEC)
        descriptors = array("i")
        for level, kind, data in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                descriptors.frombytes(data[: len(data) // INT_BYTES * INT_BYTES])
        return packet, list(descriptors)

    def expect(self, name: str) -> Message:
        """The next message, which must be ``name``. Raises ChannelClosed, or ValueError for another one."""
        message, _ = self.receive()
        if message["message"] != name:
            raise ValueError(f"expected {name}, received {message['message']}")
        return message

    def close(self) -> None:
        """Close this end. Idempotent."""
        self._socket.close()
