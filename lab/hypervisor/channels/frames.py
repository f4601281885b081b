"""The frames that sessions are made of, on their way between the host and a guest.

What they mean is told where the guest's half is, in lab/inside/frames.h. A guest is not trusted: whatever it sends
is either a well-formed frame or an error, and never more is kept of it than one frame.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum

from lab.errors import LabError
from lab.model import TerminalSize

HEADER = struct.Struct("!III")
OPENING = struct.Struct("!IHHII")
SIZE = struct.Struct("!HH")
NUMBER = struct.Struct("!I")
CREDIT = struct.Struct("!II")
WINDOW_BYTES = 1 << 16
CHUNK_BYTES = 1 << 14
MOST_OPENING_BYTES = 1 << 20
MOST_ANSWER_BYTES = CHUNK_BYTES
GREETING_BYTES = 1 << 22  # what may be left on the line before a connection's first word


class FrameKind(IntEnum):
    """As in lab/inside/frames.h."""

    OPEN = 1
    DATA = 2
    END = 3
    RESIZE = 4
    SIGNAL = 5
    CLOSE = 6
    CREDIT = 7
    STARTED = 8
    FAILED = 9
    ERRORS = 10
    ENDED = 11
    SHUT = 12
    TAKEN = 13


FROM_THE_GUEST = {  # and the length of each, None for any up to MOST_ANSWER_BYTES
    FrameKind.DATA: None,
    FrameKind.ERRORS: None,
    FrameKind.CREDIT: CREDIT.size,
    FrameKind.STARTED: 0,
    FrameKind.FAILED: NUMBER.size,
    FrameKind.ENDED: NUMBER.size,
    FrameKind.TAKEN: NUMBER.size,
}


class Malformed(LabError):
    """The guest sent what is no frame."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """One that came from a guest; its payload has the length that its kind asks for."""

    session: int
    kind: FrameKind
    payload: bytes

    @property
    def number(self) -> int:
        """The payload of FAILED, ENDED and TAKEN."""
        value: int = NUMBER.unpack(self.payload)[0]
        return value

    @property
    def credit(self) -> int:
        """The bytes that a CREDIT is for."""
        value: int = CREDIT.unpack(self.payload)[1]
        return value


def frame(session: int, kind: FrameKind, payload: bytes = b"") -> bytes:
    """One for the guest."""
    return HEADER.pack(session, kind, len(payload)) + payload


def opening(
    session: int,
    argv: Sequence[str],
    environment: Mapping[str, str],
    *,
    user: str,
    directory: str,
    terminal: TerminalSize | None,
) -> bytes:
    """OPEN. ``user`` is UID:GID[:GID…]. Raises LabError for what no program can be given (execve(2))."""
    size = terminal or TerminalSize(rows=0, columns=0)
    variables = [f"{name}={value}" for name, value in environment.items()]
    words = [user, directory, *argv, *variables]
    if any("\0" in word for word in words):
        raise LabError("a command's words can't hold a NUL byte")
    numbers = OPENING.pack(terminal is not None, size.rows & 0xFFFF, size.columns & 0xFFFF, len(argv), len(variables))
    payload = numbers + b"".join(word.encode("utf-8", "surrogateescape") + b"\0" for word in words)
    if len(payload) > MOST_OPENING_BYTES:
        raise LabError(f"{argv[0]}: its arguments and environment are longer than {MOST_OPENING_BYTES >> 20} MiB")
    return frame(session, FrameKind.OPEN, payload)


class Parser:
    """Takes a connection's bytes as they come and gives its frames, from the greeting on."""

    def __init__(self, greeting: bytes) -> None:
        """``greeting`` is the line that the guest was asked to begin with; what comes before it is old."""
        self._greeting = greeting
        self._passed = 0
        self._buffer = bytearray()

    @property
    def greeted(self) -> bool:
        return not self._greeting

    def feed(self, data: bytes) -> Iterator[Frame]:
        """The frames that ``data`` completes. Raises Malformed; nothing that comes later means anything then."""
        self._buffer += data
        if self._greeting and not self._find_greeting():
            return
        while len(self._buffer) >= HEADER.size:
            session, kind, length = HEADER.unpack_from(self._buffer)
            if kind not in FROM_THE_GUEST:
                raise Malformed(f"the guest sent a frame of the unknown kind {kind}")
            wanted = FROM_THE_GUEST[kind]
            if length > MOST_ANSWER_BYTES if wanted is None else length != wanted:
                raise Malformed(f"the guest sent a frame {FrameKind(kind).name} of {length} bytes")
            end = HEADER.size + length
            if len(self._buffer) < end:
                return
            payload = bytes(self._buffer[HEADER.size : end])
            del self._buffer[:end]
            yield Frame(session=session, kind=FrameKind(kind), payload=payload)

    def _find_greeting(self) -> bool:
        at = self._buffer.find(self._greeting)
        if at >= 0:
            del self._buffer[: at + len(self._greeting)]
            self._greeting = b""
            return True
        old = max(0, len(self._buffer) - len(self._greeting) + 1)
        del self._buffer[:old]
        self._passed += old
        if self._passed > GREETING_BYTES:
            raise Malformed("the guest never greeted")
        return False
