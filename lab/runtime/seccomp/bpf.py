"""Classic BPF as seccomp(2) uses it: an assembler, and an interpreter that tells a filter's effect.

A program is an array of struct sock_filter (linux/filter.h), 8 bytes each: code, jump if true, jump if false, k.
It sees struct seccomp_data (linux/seccomp.h): number, architecture, instruction pointer, six arguments.
Imports next to nothing: every verb of `lab-oci` that starts a process compiles a filter.
"""

from __future__ import annotations

import os
from struct import Struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

INSTRUCTION = Struct("=HBBI")
SECCOMP_DATA = Struct("=IIQ6Q")
WORD = Struct("=I")

LOAD_WORD, LOAD_IMMEDIATE = 0x20, 0x00
JUMP, JUMP_EQUAL, JUMP_GREATER, JUMP_GREATER_EQUAL, JUMP_ANY_BIT = 0x05, 0x15, 0x25, 0x35, 0x45
AND, OR, RETURN = 0x54, 0x44, 0x06
OFFSET_NUMBER, OFFSET_ARCHITECTURE, OFFSET_ARGUMENTS = 0, 4, 16
LONGEST_TEST = 255  # a conditional jump has eight bits

AUDIT_ARCHITECTURES = {"x86_64": 0xC000003E, "i386": 0x40000003, "aarch64": 0xC00000B7, "arm": 0x40000028}


class Action:
    """What a filter returns: a word whose upper half is the action, the lower its data, an errno (seccomp(2))."""

    KILL_PROCESS = 0x80000000
    KILL_THREAD = 0x00000000
    TRAP = 0x00030000
    ERRNO = 0x00050000
    NOTIFY = 0x7FC00000
    TRACE = 0x7FF00000
    LOG = 0x7FFC0000
    ALLOW = 0x7FFF0000


class Assembler:
    """Writes a program from its last instruction to its first.

    BPF jumps forward only, so whatever an instruction jumps to is written before it, and stands at a place that
    is known: a count from the end. Every method returns the place of what it wrote.
    """

    def __init__(self) -> None:
        self._code: list[tuple[int, int, int, int]] = []  # the last instruction first
        self._returns: dict[int, int] = {}

    def assemble(self) -> bytes:
        """The program: its first instruction is the one written last."""
        pack = INSTRUCTION.pack
        return b"".join([pack(*each) for each in reversed(self._code)])

    def answer(self, value: int) -> int:
        """Return ``value``. One such instruction serves all that jump to it."""
        if value not in self._returns:
            self._returns[value] = self._write(RETURN, 0, 0, value)
        return self._returns[value]

    def load(self, offset: int, then: int) -> int:
        """Load a word of seccomp_data and go on at ``then``."""
        self._continue_at(then)
        return self._write(LOAD_WORD, 0, 0, offset)

    def mask(self, bits: int, then: int) -> int:
        """Keep these bits of the loaded word and go on at ``then``."""
        self._continue_at(then)
        return self._write(AND, 0, 0, bits)

    def test(self, code: int, k: int, yes: int, no: int) -> int:
        """Go to ``yes`` if comparing the loaded word with ``k`` holds, else to ``no``."""
        yes = self._near(yes, LONGEST_TEST - 1)  # should ``no`` need a stepping stone, it stands in between
        no = self._near(no, LONGEST_TEST)
        return self._write(code, self._distance(yes), self._distance(no), k)

    def _write(self, code: int, if_true: int, if_false: int, k: int) -> int:
        self._code.append((code, if_true, if_false, k))
        return len(self._code) - 1

    def _distance(self, place: int) -> int:
        """From the instruction that would be written next."""
        return len(self._code) - place - 1

    def _near(self, place: int, reach: int) -> int:
        """``place``, or something in reach that leads there."""
        if self._distance(place) <= reach:
            return place
        code, _, _, value = self._code[place]
        if code == RETURN:
            self._returns[value] = self._write(RETURN, 0, 0, value)
            return self._returns[value]
        return self._write(JUMP, 0, 0, self._distance(place))

    def _continue_at(self, place: int) -> None:
        if self._distance(place):
            self._write(JUMP, 0, 0, self._distance(place))


def evaluate(program: bytes, number: int, arguments: Sequence[int] = (), *, architecture: int | None = None) -> int:
    """What ``program`` returns for system call ``number`` (of this machine, unless ``architecture`` is given).

    Raises ValueError for an instruction that seccomp filters don't use.
    """
    if architecture is None:
        architecture = AUDIT_ARCHITECTURES[os.uname().machine]
    padded = [*arguments, *[0] * (6 - len(arguments))]
    data = SECCOMP_DATA.pack(number & 0xFFFFFFFF, architecture, 0, *(value & (1 << 64) - 1 for value in padded))
    return _run(list(INSTRUCTION.iter_unpack(program)), data)


def possible(program: bytes, number: int) -> frozenset[int]:
    """Everything that ``program`` may return for system call ``number`` of this machine, whatever its arguments.

    Each test of an argument is taken to go both ways, so words may be among them that contradicting tests exclude.
    Raises ValueError as `evaluate`.
    """
    code = list(INSTRUCTION.iter_unpack(program))
    known = {OFFSET_NUMBER: number & 0xFFFFFFFF, OFFSET_ARCHITECTURE: AUDIT_ARCHITECTURES[os.uname().machine]}
    found: set[int] = set()
    seen: set[tuple[int, int | None]] = set()
    waiting: list[tuple[int, int | None]] = [(0, 0)]
    while waiting:
        at, accumulator = place = waiting.pop()
        if place in seen:
            continue
        seen.add(place)
        operation, if_true, if_false, k = code[at]
        if operation == RETURN:
            found.add(k)
        elif operation == LOAD_WORD:
            waiting.append((at + 1, known.get(k)))
        elif operation == LOAD_IMMEDIATE:
            waiting.append((at + 1, k))
        elif operation in (AND, OR):
            changed = None if accumulator is None else accumulator & k if operation == AND else accumulator | k
            waiting.append((at + 1, changed))
        elif operation == JUMP:
            waiting.append((at + 1 + k, accumulator))
        elif operation in _TESTS:
            ways = (True, False) if accumulator is None else (_TESTS[operation](accumulator, k),)
            waiting += [(at + 1 + (if_true if way else if_false), accumulator) for way in ways]
        else:
            raise ValueError(f"BPF instruction {operation:#x} is not one that seccomp filters use")
    return frozenset(found)


def _run(code: Sequence[tuple[int, int, int, int]], data: bytes) -> int:
    accumulator, at = 0, 0
    while True:
        operation, if_true, if_false, k = code[at]
        at += 1
        if operation == RETURN:
            return k
        if operation == LOAD_WORD:
            (accumulator,) = WORD.unpack_from(data, k)
        elif operation == LOAD_IMMEDIATE:
            accumulator = k
        elif operation == AND:
            accumulator &= k
        elif operation == OR:
            accumulator |= k
        elif operation == JUMP:
            at += k
        elif operation in _TESTS:
            at += if_true if _TESTS[operation](accumulator, k) else if_false
        else:
            raise ValueError(f"BPF instruction {operation:#x} is not one that seccomp filters use")


_TESTS: dict[int, Callable[[int, int], bool]] = {
    JUMP_EQUAL: lambda a, k: a == k,
    JUMP_GREATER: lambda a, k: a > k,
    JUMP_GREATER_EQUAL: lambda a, k: a >= k,
    JUMP_ANY_BIT: lambda a, k: bool(a & k),
}
