"""A seccomp filter made shorter without changing one answer: runs of call numbers instead of single ones.

libseccomp compares the number with each call it was told, 1,200 instructions for a profile of 300 calls and three
architectures. The kernel translates them into machine code when the filter is installed, between a container's
isolation and its first instruction. But most neighbours have the same answer, so this follows the program once
per architecture, with the whole interval of numbers at a time, notes where the answer changes, and writes a binary
search over those places. What asks for arguments is copied as it is.

Pure. `lab.runtime.bpf` names the instructions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from lab.runtime.bpf import (
    INSTRUCTION,
    JUMP,
    JUMP_EQUAL,
    JUMP_GREATER,
    JUMP_GREATER_EQUAL,
    LOAD_WORD,
    OFFSET_ARCHITECTURE,
    OFFSET_NUMBER,
    RETURN,
    instruction,
)

LARGEST_NUMBER = 0xFFFFFFFF
CLASS = 0x07  # the bits of an operation that all jumps have in common
LONGEST_TEST = 255  # a conditional jump has eight bits

Code = Sequence[tuple[int, int, int, int]]


@dataclass(frozen=True, slots=True)
class Run:
    """Numbers from ``first`` up to the next run's: ``answer`` them, or go on at ``at`` of the old program."""

    first: int
    answer: int | None
    at: int = 0


def shorten(program: bytes) -> bytes:
    """The same verdict for every architecture, number and arguments.

    Raises ValueError for a program that does more with an architecture or a number than to compare it.
    """
    code = list(INSTRUCTION.iter_unpack(program))
    known = _architectures(code)
    parts = [(architecture, _runs(code, architecture)) for architecture in known]
    (rest,) = _runs(code, None)
    if rest.answer is None:
        raise ValueError("the filter asks for arguments of an architecture it does not name")
    kept = _reachable(code, [run.at for _, runs in parts for run in runs if run.answer is None])
    # the copied part goes last; every tree is written knowing how far away it is
    sizes = [_size(runs) + 3 for _, runs in parts]
    place = {old: 2 + sum(sizes) + new for new, old in enumerate(kept)}
    written = instruction(LOAD_WORD, OFFSET_ARCHITECTURE)
    for (architecture, runs), size in zip(parts, sizes, strict=True):
        written += instruction(JUMP_EQUAL, architecture, 1, 0)
        written += instruction(JUMP, size - 2)
        written += instruction(LOAD_WORD, OFFSET_NUMBER)
        written += _search(runs, len(written) // INSTRUCTION.size, place)
    written += instruction(RETURN, rest.answer)
    return written + b"".join(_moved(code, old, place) for old in kept)


def _architectures(code: Code) -> list[int]:
    """What the program compares with the architecture, in order."""
    found: list[int] = []
    for at, (operation, _, _, k) in enumerate(code):
        if (operation, k) == (LOAD_WORD, OFFSET_ARCHITECTURE):
            after = at + 1
            while code[after][0] in (JUMP_EQUAL, JUMP):  # libseccomp puts one comparison behind the other's code
                target = code[after][3]
                if code[after][0] == JUMP_EQUAL and target not in found:
                    found.append(target)
                after += 1 + (code[after][2] if code[after][0] == JUMP_EQUAL else target)
    return found


def _runs(code: Code, architecture: int | None) -> list[Run]:
    """What happens to every number of ``architecture`` (None: of any that is not named), ascending, merged."""
    merged: list[Run] = []
    for run in sorted(_follow(code, architecture, 0, None, 0, LARGEST_NUMBER), key=lambda run: run.first):
        if not merged or (merged[-1].answer, merged[-1].at) != (run.answer, run.at):
            merged.append(run)
    return merged


def _follow(code: Code, architecture: int | None, at: int, loaded: int | None, low: int, high: int) -> Iterator[Run]:
    """Execute from ``at`` for all numbers from ``low`` to ``high`` at once, parting where a test parts them."""
    while low <= high:
        operation, if_true, if_false, k = code[at]
        if operation == RETURN:
            yield Run(low, k)
            return
        if operation == LOAD_WORD and k not in (OFFSET_ARCHITECTURE, OFFSET_NUMBER):
            yield Run(low, None, at)
            return
        at += 1
        if operation == LOAD_WORD:
            loaded = k
        elif operation == JUMP:
            at += k
        elif operation == JUMP_EQUAL and loaded == OFFSET_ARCHITECTURE:
            at += if_true if k == architecture else if_false
        elif loaded == OFFSET_NUMBER and operation in (JUMP_EQUAL, JUMP_GREATER, JUMP_GREATER_EQUAL):
            first = k + (operation == JUMP_GREATER)
            last = k if operation == JUMP_EQUAL else LARGEST_NUMBER
            yield from _follow(code, architecture, at + if_true, loaded, max(low, first), min(high, last))
            yield from _follow(code, architecture, at + if_false, loaded, max(low, last + 1), high)
            at, high = at + if_false, min(high, first - 1)
        else:
            raise ValueError(f"instruction {at - 1}: {operation:#x} on the architecture or the number")


def _size(runs: Sequence[Run]) -> int:
    """Instructions of their search: an end for each, and a test between any two."""
    return 2 * len(runs) - 1


def _search(runs: Sequence[Run], at: int, place: dict[int, int]) -> bytes:
    """A binary search over ``runs``, to stand at ``at``: the lower half follows its test, then the upper."""
    if len(runs) == 1:
        (run,) = runs
        return instruction(JUMP, place[run.at] - at - 1) if run.answer is None else instruction(RETURN, run.answer)
    middle = len(runs) // 2
    lower, upper = runs[:middle], runs[middle:]
    if _size(lower) > LONGEST_TEST:
        raise ValueError("too many runs of numbers")
    test = instruction(JUMP_GREATER_EQUAL, upper[0].first, _size(lower), 0)
    return test + _search(lower, at + 1, place) + _search(upper, at + 1 + _size(lower), place)


def _reachable(code: Code, starts: Sequence[int]) -> list[int]:
    """Every instruction that may be executed from ``starts`` on, ascending: BPF only jumps forward."""
    found: set[int] = set()
    waiting = list(starts)
    while waiting:
        at = waiting.pop()
        if at not in found:
            found.add(at)
            waiting += _next(code, at)
    return sorted(found)


def _next(code: Code, at: int) -> list[int]:
    operation, if_true, if_false, k = code[at]
    if operation == RETURN:
        return []
    if operation == JUMP:
        return [at + 1 + k]
    if operation & CLASS == JUMP:
        return [at + 1 + if_true, at + 1 + if_false]
    return [at + 1]


def _moved(code: Code, at: int, place: dict[int, int]) -> bytes:
    """The instruction at ``at`` with its jumps adjusted to where everything stands now: never farther."""
    operation, _, _, k = code[at]
    targets = [place[target] - place[at] - 1 for target in _next(code, at)]
    if operation == JUMP:
        return instruction(JUMP, targets[0])
    if len(targets) == 2:
        return instruction(operation, k, *targets)
    return instruction(operation, k)
