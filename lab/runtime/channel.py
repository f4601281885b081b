"""Named messages between two processes, with descriptors where they are needed (unix(7)).

A message is one packet of a SOCK_SEQPACKET pair: a JSON object whose ``message`` is its name. Packets keep
their borders, arrive in order, and the end of the peer is an end of file, not a time-out.
Standard library only, and little of that: every verb of `lab-oci` that starts a process imports this.
"""

from __future__ import annotations

import _socket
import fcntl
import os
import sys

from lab.shims import dumps, loads, suppress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

LARGEST_MESSAGE_BYTES = 1 << 20
MOST_DESCRIPTORS = 253  # SCM_MAX_FD (unix(7))
INT_BYTES = 4
_SO_SNDBUFFORCE = 32  # asm-generic/socket.h; past net.core.wmem_max, for root

Message = dict[str, object]


class ChannelClosed(Exception):
    """The peer has gone, or has closed its end."""


class BadMessage(ValueError):
    """One that is too long to be sent, or that was received and is none: its descriptors are closed.

    ``message`` is what could be read of it. Those before it and behind it are not concerned.
    """

    def __init__(self, text: str, message: Message | None = None) -> None:
        super().__init__(text)
        self.message = message or {}


class Channel:
    """One end. Both ends may send at any time; one reader and one writer per end."""

    def __init__(self, end: _socket.socket) -> None:
        self._socket = end

    @classmethod
    def pair(cls) -> tuple[Channel, Channel]:
        """Two connected ends, both close-on-exec."""
        first, second = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
        return cls(first), cls(second)

    @classmethod
    def inherited(cls, descriptor: int) -> Channel:
        """The end that a parent left open as ``descriptor``."""
        return cls(_socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET, 0, descriptor))

    @classmethod
    def connected(cls, path: str) -> Channel:
        """To whoever listens at ``path``. Raises OSError."""
        end = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
        try:
            end.connect(path)
        except BaseException:
            end.close()
            raise
        return cls(end)

    @classmethod
    def accepted(cls, listener: int) -> Channel:
        """The next peer that connects to the listening socket ``listener``, which stays the caller's."""
        door = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET, 0, listener)
        try:
            descriptor, _ = door._accept()  # type: ignore[attr-defined]
        finally:
            door.detach()
        return cls.inherited(descriptor)

    def allow_large_messages(self) -> None:
        """Let this end send messages up to LARGEST_MESSAGE_BYTES, or what the system allows without root."""
        for option in (_socket.SO_SNDBUF, _SO_SNDBUFFORCE):
            with suppress(PermissionError):
                self._socket.setsockopt(_socket.SOL_SOCKET, option, LARGEST_MESSAGE_BYTES)

    def fileno(self) -> int:
        """For poll(2)."""
        return self._socket.fileno()

    def continue_at(self, other: Channel) -> None:
        """Be the end of another connection from now on, which ``other`` no longer is."""
        self._socket.close()
        self._socket = other._socket

    def move_to(self, least: int) -> None:
        """Have a descriptor of at least ``least``, so that lower ones are free for others."""
        if self.fileno() < least:
            moved = fcntl.fcntl(self.fileno(), fcntl.F_DUPFD_CLOEXEC, least)
            self._socket.close()
            self._socket = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET, 0, moved)

    def send(self, name: str, *, descriptors: Sequence[int] = (), **fields: object) -> None:
        """Send one message. Raises ChannelClosed when nobody is left to read it, BadMessage if it is too long."""
        packet = dumps({"message": name, **fields}).encode()
        if len(packet) > LARGEST_MESSAGE_BYTES:
            raise BadMessage(f"{name} has {len(packet)} bytes, and may have {LARGEST_MESSAGE_BYTES}")
        rights = b"".join([number.to_bytes(INT_BYTES, sys.byteorder) for number in descriptors])
        ancillary = [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, rights)] if rights else []
        try:
            self._socket.sendmsg([packet], ancillary)
        except (BrokenPipeError, ConnectionResetError) as error:
            raise ChannelClosed from error

    def receive(self) -> tuple[Message, list[int]]:
        """The next message and its descriptors, close-on-exec; they are the caller's to close.

        Raises ChannelClosed at the end of file, BadMessage for what is no message.
        """
        try:
            packet, descriptors, flags = self._packet()
        except ConnectionResetError:
            # The peer went without reading all that was sent to it. This is told once, ahead of its last words.
            packet, descriptors, flags = self._packet()
        if not packet and not descriptors:
            raise ChannelClosed
        try:
            return parsed(packet, flags), descriptors
        except BadMessage:
            for descriptor in descriptors:
                os.close(descriptor)
            raise

    def _packet(self) -> tuple[bytes, list[int], int]:
        """socket.recv_fds would drop the flag that makes descriptors close-on-exec (before Python 3.12)."""
        room = _socket.CMSG_LEN(MOST_DESCRIPTORS * INT_BYTES)
        packet, ancillary, flags, _ = self._socket.recvmsg(LARGEST_MESSAGE_BYTES, room, _socket.MSG_CMSG_CLOEXEC)
        descriptors = []
        for level, kind, data in ancillary:
            if (level, kind) == (_socket.SOL_SOCKET, _socket.SCM_RIGHTS):
                whole = range(0, len(data) // INT_BYTES * INT_BYTES, INT_BYTES)
                descriptors += [int.from_bytes(data[at : at + INT_BYTES], sys.byteorder) for at in whole]
        return packet, descriptors, flags

    def expect(self, name: str) -> Message:
        """The next message, which must be ``name``. Raises ChannelClosed, or ValueError for another one."""
        message, _ = self.receive()
        if message["message"] != name:
            raise ValueError(f"expected {name}, received {message['message']}")
        return message

    def hang_up(self) -> None:
        """End the conversation, for the peer and for another thread that is just reading here; then close.

        Not for an end that another process has a copy of: it would be hung up for that one, too.
        """
        with suppress(OSError):
            self._socket.shutdown(_socket.SHUT_RDWR)
        self.close()

    def close(self) -> None:
        """Close this end. Idempotent."""
        self._socket.close()


def parsed(packet: bytes, flags: int = 0) -> Message:
    """The message in one packet, received with ``flags`` (recvmsg(2)). Raises BadMessage."""
    if flags & _socket.MSG_TRUNC:
        raise BadMessage(f"a message of more than {LARGEST_MESSAGE_BYTES} bytes was cut off")
    try:
        message = loads(packet)
    except ValueError as error:
        raise BadMessage(f"a message is no JSON: {error}") from error
    if not isinstance(message, dict) or not isinstance(message.get("message"), str):
        raise BadMessage("a message has no name")
    if flags & _socket.MSG_CTRUNC:
        raise BadMessage(f"not all descriptors of {message['message']} could be received", message)
    return message
