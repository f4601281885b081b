"""System calls written down, for a process of lab's helper to carry out one after the other (inside/begin.c).

A `Script` is such a program while it is written: `call` adds a system call by its name. What one returns, a
descriptor mostly, is in a register, and a later call has that as an argument. What is to happen after a failure is
said with the call; without a word, the attempt has failed. Standard library only; see `lab.runtime.spawner.spawner`.
"""

from __future__ import annotations

import os
import struct

from lab.runtime.seccomp import calls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TypeVar

    Known = TypeVar("Known")

CALL = struct.Struct("<HBBHH6BH6q")
HEAD = struct.Struct("<QIIiI")
NUMBER, REGISTER, POINTER = range(3)
MUST_BE_ZERO, SKIP_IF_DONE = 1, 2
ANY = 0xFFFF
OWN = 0x8000
REGISTERS = 256
ALIGNMENT_BYTES = 8

OWN_CALLS = (
    "IS_DIRECTORY",
    "IS_NULL",
    "IS_SET",
    "IS_INSIDE",
    "NOTHING",
    "MODE_OF",
    "PREPARE",
    "FILTER",
    "EXECUTE",
    "RAISED",
    "BASE",
)


def numbers(machine: str) -> dict[str, int]:
    """Each call's number in a script, by its name: the numbers of ``machine``'s kernel, and lab's own. On a machine
    without a table of them there are lab's own alone, and no scripts (`lab.runtime.scripts.bearer`).
    """
    own = {name: OWN + place for place, name in enumerate(OWN_CALLS)}
    return calls.numbers(calls.OWN[machine]) | own if machine in calls.OWN else own


NUMBERS = numbers(os.uname().machine)


class Register(int):
    """One of the places where results are kept."""


DISCARD = Register(REGISTERS - 1)
"""For results that nobody wants."""


def text(value: str) -> bytes:
    """As system calls take it. Raises ValueError for what they would take for a shorter one."""
    if "\0" in value:
        raise ValueError("a zero byte in what is to be a string")
    return os.fsencode(value)


class Part:
    """Calls that are packed, and the data that they point to, each from its own beginning."""

    def __init__(self) -> None:
        self.calls: list[list[int]] = []
        self.data = bytearray()
        self.packed = b""
        self._places: dict[bytes, int] = {}

    def keep(self, content: bytes) -> int:
        """Where it is in the data; there is a zero byte behind it."""
        if content not in self._places:
            self._places[content] = len(self.data)
            self.data += content + bytes(ALIGNMENT_BYTES - len(content) % ALIGNMENT_BYTES)
        return self._places[content]

    def close(self) -> None:
        """There will be no more of it."""
        self.packed = b"".join([CALL.pack(*each) for each in self.calls])


class Script:
    """A program while it is written."""

    def __init__(self, given: int) -> None:
        """The first ``given`` registers hold the descriptors that come with it."""
        self._parts: list[Part] = []
        self._part = Part()
        self._next = given

    def register(self) -> Register:
        """A new one. Raises OverflowError when there is none left."""
        if self._next >= DISCARD:
            raise OverflowError("too many descriptors for a script")
        self._next += 1
        return Register(self._next - 1)

    def call(
        self,
        name: str,
        *arguments: int | bytes,
        to: Register = DISCARD,
        pardon: int = 0,
        flags: int = 0,
        skip: int = 0,
    ) -> Callable[[], None]:
        """Add one; bytes are handed over by their address. After the errno ``pardon`` it goes on.

        The result is to be called where it is to go on then; or, with SKIP_IF_DONE, when there was no error.
        """
        part = self._part
        kinds, values = [NUMBER] * 6, [0] * 6
        for place, argument in enumerate(arguments):
            if isinstance(argument, bytes):
                kinds[place], values[place] = POINTER, part.keep(argument)
            else:
                kinds[place] = REGISTER if type(argument) is Register else NUMBER
                values[place] = int(argument)
        made = [NUMBERS[name], to, flags, pardon, skip, *kinds, 0, *values]
        part.calls.append(made)
        here = len(part.calls)

        def go_on_here() -> None:
            made[4] = len(part.calls) - here

        return go_on_here

    def part(self, key: object, write: Callable[[], Known]) -> Known:
        """What ``write`` adds and returns. It is written once for each ``key``, which has to say all that it depends
        on: containers have most of their mounts and masks in common.
        """
        self._end_part()
        wanted = key, self._next
        if wanted not in _known:
            if len(_known) >= MOST_KNOWN:
                _known.clear()
            found = write()
            _known[wanted] = self._part, self._next, found
        self._part, self._next, found = _known[wanted]
        self._end_part()
        return found

    def _end_part(self) -> None:
        if not self._part.packed:
            self._part.close()
        self._parts.append(self._part)
        self._part = Part()

    def packed(self, clone_flags: int, cgroup: int, channel: int) -> bytes:
        """The request, but for its descriptors: which of them are the group's (or -1) and the launcher's."""
        self._end_part()
        packed, data = bytearray(), bytearray()
        for part in self._parts:
            packed += CALL.pack(NUMBERS["BASE"], DISCARD, 0, 0, 0, *[NUMBER] * 6, 0, len(data), 0, 0, 0, 0, 0)
            packed += part.packed
            data += part.data
        return HEAD.pack(clone_flags, len(packed) // CALL.size, len(data), cgroup, channel) + packed + data


_known: dict[tuple[object, int], tuple[Part, int, Any]] = {}
MOST_KNOWN = 64
