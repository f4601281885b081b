"""Classic BPF as seccomp(2) uses it: an interpreter to test a filter's effect, and a prologue for new calls.

A program is an array of struct sock_filter (linux/filter.h), 8 bytes each: code, jump if true, jump if false, k.
It sees struct seccomp_data (linux/seccomp.h): number, architecture, instruction pointer, six arguments.
"""

from __future__ import annotations

import platform
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum

INSTRUCTION = struct.Struct("=HBBI")
SECCOMP_DATA = struct.Struct("=iIQ6Q")

LOAD_WORD, LOAD_IMMEDIATE = 0x20, 0x00
JUMP, JUMP_EQUAL, JUMP_GREATER, JUMP_GREATER_EQUAL, JUMP_ANY_BIT = 0x05, 0x15, 0x25, 0x35, 0x45
AND, OR, RETURN = 0x54, 0x44, 0x06
OFFSET_NUMBER, OFFSET_ARCHITECTURE = 0, 4

AUDIT_ARCHITECTURES = {"x86_64": 0xC000003E, "i386": 0x40000003, "aarch64": 0xC00000B7, "arm": 0x40000028}
X32_BIT = 0x40000000  # set in the number of an x32 call, which has the architecture of x86_64


class Action(IntEnum):
    """What a filter returns, without its data (seccomp(2))."""

    KILL_PROCESS = 0x80000000
    KILL_THREAD = 0x00000000
    TRAP = 0x00030000
    ERRNO = 0x00050000
    NOTIFY = 0x7FC00000
    TRACE = 0x7FF00000
    LOG = 0x7FFC0000
    ALLOW = 0x7FFF0000


@dataclass(frozen=True, slots=True)
class Verdict:
    """A filter's answer to one system call; ``number`` is the errno for `Action.ERRNO`."""

    action: Action
    number: int = 0


def instruction(code: int, k: int, if_true: int = 0, if_false: int = 0) -> bytes:
    """One struct sock_filter."""
    return INSTRUCTION.pack(code, if_true, if_false, k)


def errno_for_newer(program: bytes, newest: Mapping[int, int], number: int) -> bytes:
    """``program`` behind a prologue that answers errno ``number`` to calls above ``newest`` by audit architecture.

    Without it a call that the profile's author could not know gets EPERM, and C libraries that would fall back
    on ENOSYS give up instead.
    """
    prologue = b""
    for architecture, highest in newest.items():
        prologue += instruction(LOAD_WORD, OFFSET_ARCHITECTURE)
        prologue += instruction(JUMP_EQUAL, architecture, 0, 4)
        prologue += instruction(LOAD_WORD, OFFSET_NUMBER)
        prologue += instruction(JUMP_GREATER, highest, 0, 2)
        prologue += instruction(JUMP_GREATER_EQUAL, X32_BIT, 1, 0)
        prologue += instruction(RETURN, Action.ERRNO | number)
    return prologue + program


def evaluate(
    program: bytes, number: int, arguments: Sequence[int] = (), *, architecture: int | None = None
) -> Verdict:
    """What the kernel would answer to system call ``number`` (of this machine, unless ``architecture`` is given)."""
    if architecture is None:
        architecture = AUDIT_ARCHITECTURES[platform.machine()]
    padded = [*arguments, *[0] * (6 - len(arguments))]
    signed = number - (1 << 32) if number >= 1 << 31 else number
    data = SECCOMP_DATA.pack(signed, architecture, 0, *(value & 0xFFFFFFFFFFFFFFFF for value in padded))
    code = list(INSTRUCTION.iter_unpack(program))
    result = _run(code, data)
    masked = result & 0xFFFF0000
    return Verdict(Action(masked), result & 0xFFFF)


def _run(code: Sequence[tuple[int, int, int, int]], data: bytes) -> int:
    accumulator, at = 0, 0
    while True:
        operation, if_true, if_false, k = code[at]
        at += 1
        if operation == RETURN:
            return k
        if operation == LOAD_WORD:
            accumulator = struct.unpack_from("=I", data, k)[0]
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
