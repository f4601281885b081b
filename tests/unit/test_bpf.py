"""Classic BPF: codes as the kernel has them, programs by hand, jumps at the edge of what an instruction can say."""

from __future__ import annotations

import os

import pytest

from lab.runtime.seccomp import bpf
from lab.runtime.seccomp.bpf import AUDIT_ARCHITECTURES, INSTRUCTION, Action, Assembler, evaluate, possible

# linux/bpf_common.h
LD, ALU, JMP, RET = 0x00, 0x04, 0x05, 0x06
W, IMM, ABS, K = 0x00, 0x00, 0x20, 0x00
JA, JEQ, JGT, JGE, JSET, AND, OR = 0x00, 0x10, 0x20, 0x30, 0x40, 0x50, 0x40
MINE = AUDIT_ARCHITECTURES[os.uname().machine]


def instruction(code: int, k: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return INSTRUCTION.pack(code, if_true, if_false, k)


def program(*instructions: tuple[int, ...]) -> bytes:
    """Each is a code, k, and for a test by how much to jump if it holds and if not."""
    return b"".join(instruction(*each) for each in instructions)


def test_codes_are_the_kernels() -> None:
    assert (bpf.LOAD_WORD, bpf.LOAD_IMMEDIATE, bpf.RETURN) == (LD | W | ABS, LD | IMM, RET | K)
    assert (bpf.AND, bpf.OR) == (ALU | AND | K, ALU | OR | K)
    jumps = (bpf.JUMP, bpf.JUMP_EQUAL, bpf.JUMP_GREATER, bpf.JUMP_GREATER_EQUAL, bpf.JUMP_ANY_BIT)
    assert jumps == tuple(JMP | kind for kind in (JA, JEQ, JGT, JGE, JSET))


def test_actions_and_architectures_are_the_kernels() -> None:
    """linux/seccomp.h; linux/audit.h: the ELF machine, little endian (1 << 30), with 64 bits (1 << 31)."""
    assert (Action.KILL_PROCESS, Action.KILL_THREAD, Action.TRAP) == (0x80000000, 0, 0x30000)
    assert (Action.ERRNO, Action.NOTIFY, Action.TRACE) == (0x50000, 0x7FC00000, 0x7FF00000)
    assert (Action.LOG, Action.ALLOW) == (0x7FFC0000, 0x7FFF0000)
    machines = {"x86_64": 62, "i386": 3, "aarch64": 183, "arm": 40}
    wide = {"x86_64", "aarch64"}
    assert {
        name: machine | 1 << 30 | (1 << 31 if name in wide else 0) for name, machine in machines.items()
    } == AUDIT_ARCHITECTURES


def test_an_instruction_is_the_kernels_struct() -> None:
    """struct sock_filter { __u16 code; __u8 jt, jf; __u32 k; }"""
    assert instruction(0x15, 0x01020304, 5, 6) == bytes([0x15, 0, 5, 6, 4, 3, 2, 1])
    assert instruction(6, 0) == bytes([6, 0, 0, 0, 0, 0, 0, 0])


@pytest.mark.parametrize(
    ("offset", "word"),
    [
        (bpf.OFFSET_NUMBER, 42), (bpf.OFFSET_ARCHITECTURE, MINE), (bpf.OFFSET_ARGUMENTS, 0x11223344),
        (bpf.OFFSET_ARGUMENTS + 4, 0xFFEEDDCC), (bpf.OFFSET_ARGUMENTS + 8, 7), (bpf.OFFSET_ARGUMENTS + 40, 0),
        (8, 0), (12, 0),
    ],
)  # fmt: skip
def test_what_stands_where(offset: int, word: int) -> None:
    found = program((LD | W | ABS, offset), (JMP | JEQ, word, 0, 1), (RET, 1), (RET, 2))
    assert evaluate(found, 42, (0xFFEEDDCC11223344, 7)) == 1
    assert evaluate(found, 42, (0xFFEEDDCC11223344, 7), architecture=MINE) == 1


def test_another_architecture_is_seen() -> None:
    found = program((LD | W | ABS, 4), (JMP | JEQ, 5, 0, 1), (RET, 1), (RET, 2))
    assert (evaluate(found, 0, architecture=5), evaluate(found, 0)) == (1, 2)


@pytest.mark.parametrize(
    ("code", "k", "held"),
    [(JEQ, 6, False), (JEQ, 5, True), (JGT, 4, True), (JGT, 5, False), (JGE, 5, True), (JGE, 6, False),
     (JSET, 4, True), (JSET, 2, False)],
)  # fmt: skip
def test_each_test_both_ways(code: int, k: int, held: bool) -> None:
    found = program((LD | IMM, 5), (JMP | code, k, 1, 2), (RET, 9), (RET, 1), (RET, 2))
    assert evaluate(found, 0) == (1 if held else 2)
    assert possible(found, 0) == {1 if held else 2}


@pytest.mark.parametrize(("code", "k", "result"), [(AND, 6, 4), (OR, 2, 7)])
def test_arithmetic(code: int, k: int, result: int) -> None:
    found = program((LD | IMM, 5), (ALU | code, k), (JMP | JEQ, result, 0, 1), (RET, 1), (RET, 2))
    assert evaluate(found, 0) == 1
    assert possible(found, 0) == {1}


def test_a_jump_leaves_out() -> None:
    found = program((LD | IMM, 5), (JMP | JA, 2), (RET, 1), (RET, 2), (JMP | JEQ, 5, 0, 1), (RET, 3), (RET, 4))
    assert evaluate(found, 0) == 3
    assert possible(found, 0) == {3}


@pytest.mark.parametrize(
    "before", [((JMP | JA, 1), (RET, 9)), ((LD | IMM, 5),), ((LD | IMM, 5), (ALU | AND, 6)), ((LD | W | ABS, 0),)]
)
def test_each_goes_on_with_the_next(before: tuple[tuple[int, int], ...]) -> None:
    found = program(*before, (RET, 1), (RET, 2), (RET, 3))
    assert evaluate(found, 0) == 1
    assert possible(found, 0) == {1}


def test_an_argument_may_be_negative_as_in_c() -> None:
    found = program((LD | W | ABS, 20), (JMP | JEQ, 0xFFFFFFFF, 0, 1), (RET, 1), (RET, 2))
    assert evaluate(found, 0, (-1,)) == 1


def test_only_tests_say_how_far_to_jump() -> None:
    assembler = Assembler()
    first, second = assembler.answer(1), assembler.answer(2)
    goal = assembler.mask(1, second)
    place = assembler.load(0, assembler.mask(1, first))
    for _ in range(260):
        place = assembler.mask(1, place)
    assembler.test(bpf.JUMP_EQUAL, 5, goal, place)
    assembler.test(bpf.JUMP_EQUAL, 5, second, place)  # an answer, which is given anew
    for code, yes, no, _ in bpf.INSTRUCTION.iter_unpack(assembler.assemble()):
        assert code == bpf.JUMP_EQUAL or (yes, no) == (0, 0)


def test_it_begins_with_nothing_loaded() -> None:
    found = program((JMP | JEQ, 0, 0, 1), (RET, 1), (RET, 2))
    assert evaluate(found, 5) == 1
    assert possible(found, 5) == {1}


def test_what_depends_on_arguments_may_go_both_ways() -> None:
    argument = program((LD | W | ABS, 16), (ALU | AND, 1), (ALU | OR, 2), (JMP | JEQ, 2, 0, 1), (RET, 1), (RET, 2))
    assert possible(argument, 0) == {1, 2}
    known = program((LD | W | ABS, 0), (JMP | JEQ, 3, 0, 1), (RET, 1), (LD | W | ABS, 4), (JMP | JEQ, MINE, 0, 1),
                    (RET, 2), (RET, 3))  # fmt: skip
    assert (possible(known, 3), possible(known, 4)) == ({1}, {2})
    assert possible(known, 3 - (1 << 32)) == {1}, "a number is 32 bits"


def test_a_program_that_meets_again_is_read_once() -> None:
    """Forty tests in a row, which have 2⁴⁰ ways through them."""
    tests = [each for _ in range(40) for each in ((LD | W | ABS, 16), (JMP | JEQ, 7, 0, 0))]
    assert possible(program(*tests, (RET, 1)), 0) == {1}
    rest = program((LD | W | ABS, 16), (JMP | JEQ, 7, 3, 0), *tests[:2], (RET, 1), (RET, 2))
    assert possible(rest, 0) == {1, 2}, "what still waits is read when something is met again"


@pytest.mark.parametrize("read", [evaluate, possible])
def test_other_instructions_are_refused(read: object) -> None:
    with pytest.raises(ValueError, match="0x87"):
        read(program((0x87, 0), (RET, 1)), 0)  # type: ignore[operator]


@pytest.mark.parametrize("far", range(250, 262))
@pytest.mark.parametrize("which", ["yes", "no", "both"])
def test_a_jump_reaches_its_place_however_far(far: int, which: str) -> None:
    """Both to an answer and to an instruction that goes on, which a stepping stone leads to."""
    for is_answer in (True, False):
        assembler = Assembler()
        ends = [assembler.answer(value) for value in (1, 2)]
        places = ends if is_answer else [assembler.mask(0xFFFFFFFF, end) for end in ends]
        near = place = assembler.answer(3)
        for _ in range(far):
            place = assembler.mask(0xFF, place)
        yes, no = places
        if which == "yes":
            no = near
        elif which == "no":
            yes = near
        assembler.load(0, assembler.test(bpf.JUMP_EQUAL, 5, yes, no))
        found = assembler.assemble()
        assert evaluate(found, 5) == (3 if which == "no" else 1)
        assert evaluate(found, 6) == (3 if which == "yes" else 2)


@pytest.mark.parametrize("is_mask", [True, False])
def test_what_goes_on_elsewhere_jumps_and_what_follows_does_not(is_mask: bool) -> None:
    assembler = Assembler()
    first, second = assembler.answer(1), assembler.answer(2)
    for then, answer, length in ((second, 2, 1), (first, 1, 2)):
        before = len(assembler.assemble())
        place = assembler.mask(1, then) if is_mask else assembler.load(0, then)
        assert (len(assembler.assemble()) - before) // bpf.INSTRUCTION.size == length
        assert place == len(assembler.assemble()) // bpf.INSTRUCTION.size - 1
        assert evaluate(assembler.assemble(), 0) == answer


def test_no_stone_is_laid_where_a_jump_reaches() -> None:
    """255 instructions further, and 254 where the other way might need a stone between."""
    for far, more in ((254, 0), (255, 1)):
        assembler = Assembler()
        yes = assembler.answer(1)
        place = assembler.answer(2)
        for _ in range(far - 1):
            place = assembler.mask(1, place)
        before = len(assembler.assemble()) // bpf.INSTRUCTION.size
        assembler.test(bpf.JUMP_EQUAL, 5, yes, place)
        assert len(assembler.assemble()) // bpf.INSTRUCTION.size == before + 1 + more
