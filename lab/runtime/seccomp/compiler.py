"""From the OCI configuration's seccomp section to the program that seccomp(2) takes.

libseccomp is what other runtimes use, and its decisions are the measure of ours (tests/unit/test_runtime_seccomp.py
asks both about every call). It is not used here, because `lab-oci` compiles a filter on every start: podman's
default profile of 470 names and three architectures takes libseccomp 12 ms and 1,144 instructions, this 0.8 and 370.

What is decided for a call is looked up by a binary search over runs of numbers with the same answer, since most
neighbours have it. Calls that the author of a profile could not know, newer than all it names, get ENOSYS, so that
a C library falls back on an older one instead of giving up; not where the default lets calls pass. That is runc's
rule too. Sources: seccomp(2), seccomp_rule_add(3), runtime-spec config-linux.md "Seccomp".
"""

from __future__ import annotations

import binascii
import os

from lab.errors import LabError, UsageError
from lab.runtime.seccomp.bpf import (
    AUDIT_ARCHITECTURES,
    JUMP_EQUAL,
    JUMP_GREATER,
    JUMP_GREATER_EQUAL,
    OFFSET_ARCHITECTURE,
    OFFSET_ARGUMENTS,
    OFFSET_NUMBER,
    Action,
    Assembler,
    evaluate,
)
from lab.runtime.seccomp.calls import OWN, X32_BIT, multiplexed, numbers

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from lab.runtime.config.model import Seccomp, SeccompArgument, SeccompRule

    Condition = tuple[int, str, int, int]  # argument, operator, value, value two
    Alternative = tuple[Condition, ...]  # all of them hold
    Rule = tuple[tuple[str, ...], int, list[Alternative]]  # names, what to return, and when
    Conditional = tuple[bool, tuple[tuple[Alternative, int], ...]]  # whether arguments have 64 bits; what they decide
    Answer = int | Conditional
    Run = tuple[int, Answer]  # the first number it holds for

EPERM, ENOSYS, MAX_ERRNO = 1, 38, 4095
LOW, HIGH = 0xFFFFFFFF, 32
ARGUMENTS = 6
OPERATORS = ("NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ")

ACTIONS = {
    "SCMP_ACT_KILL": Action.KILL_THREAD,
    "SCMP_ACT_KILL_THREAD": Action.KILL_THREAD,
    "SCMP_ACT_KILL_PROCESS": Action.KILL_PROCESS,
    "SCMP_ACT_TRAP": Action.TRAP,
    "SCMP_ACT_ERRNO": Action.ERRNO,
    "SCMP_ACT_TRACE": Action.TRACE,
    "SCMP_ACT_ALLOW": Action.ALLOW,
    "SCMP_ACT_LOG": Action.LOG,
    "SCMP_ACT_NOTIFY": Action.NOTIFY,
}
WITH_NUMBER = ("SCMP_ACT_ERRNO", "SCMP_ACT_TRACE")
LETTING_PASS = ("SCMP_ACT_ALLOW", "SCMP_ACT_LOG", "SCMP_ACT_TRACE")

FLAGS = {
    "SECCOMP_FILTER_FLAG_TSYNC": 1,
    "SECCOMP_FILTER_FLAG_LOG": 2,
    "SECCOMP_FILTER_FLAG_SPEC_ALLOW": 4,
    "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV": 32,
}
NEW_LISTENER, TSYNC_ESRCH = 8, 16

MACHINES = {
    "x86_64": {"SCMP_ARCH_X86_64": "x86_64", "SCMP_ARCH_X86": "i386", "SCMP_ARCH_X32": "x86_64"},
    "aarch64": {"SCMP_ARCH_AARCH64": "aarch64", "SCMP_ARCH_ARM": "arm"},
}
"""What a machine's kernel can execute, its own first, by the name it goes by in an audit record. The other
architectures that the specification lists decide nothing here: none of their calls can ever be made."""

OF_64_BITS = ("SCMP_ARCH_X86_64", "SCMP_ARCH_AARCH64")
BAD_ARCHITECTURE = Action.KILL_THREAD
NO_CALL = 0xFFFFFFFF


_compiled: dict[tuple[int, str], tuple[Seccomp, bytes]] = {}  # by a profile's id, which is its own while it is kept


def compile(profile: Seccomp, machine: str | None = None) -> bytes:
    """The profile as an array of struct sock_filter for seccomp(2), for this machine or another. Kept.

    A name that this kernel's architectures don't have is left out, as every runtime does. Of several rules for one
    call the first whose conditions hold decides; libseccomp leaves that order open. Raises UsageError for what
    can't be: an unknown action or operator, an errno for an action without one, rules that contradict each other.
    """
    machine = machine or os.uname().machine
    key = id(profile), machine
    if key not in _compiled:
        _compiled[key] = profile, _compile(profile, machine)
    return _compiled[key][1]


def native() -> dict[str, int]:
    """The machine's own system calls, number by name. Raises LabError where lab has no table of them."""
    machine = os.uname().machine
    if machine not in OWN:
        raise LabError(f"lab has no table of system calls for {machine}", hint="it has them for x86_64 and aarch64")
    return numbers(OWN[machine])


def _compile(profile: Seccomp, machine: str) -> bytes:
    known = MACHINES.get(machine)
    if known is None:
        raise UsageError(f"linux.seccomp: lab has no table of system calls for {machine}")
    default = word(profile.default_action, profile.default_errno_ret)
    if default == Action.NOTIFY:
        raise UsageError("linux.seccomp.defaultAction: SCMP_ACT_NOTIFY can't be the default")
    rules = [_rule(rule) for rule in profile.syscalls]
    newer = default if profile.default_action in LETTING_PASS else Action.ERRNO | ENOSYS
    native = next(iter(known))
    present = [name for name in known if name == native or name in profile.architectures]
    assembler = Assembler()
    first = assembler.answer(BAD_ARCHITECTURE)
    for audited in {known[name]: None for name in reversed(present)}:
        runs: list[Run] = []
        for name in (each for each in known if known[each] == audited):
            runs += _runs(name, rules, default, newer) if name in present else _refused(name, default)
        tree = assembler.load(OFFSET_NUMBER, _search(assembler, _merged(runs), {}, default))
        first = assembler.test(JUMP_EQUAL, AUDIT_ARCHITECTURES[audited], tree, first)
    assembler.load(OFFSET_ARCHITECTURE, first)
    return assembler.assemble()


def flags(profile: Seccomp) -> int:
    """The flags for seccomp(2); SECCOMP_FILTER_FLAG_NEW_LISTENER among them if somebody is to be notified.

    Raises UsageError for an unknown one, for a listener that there must be and is not, or the reverse, and for a
    filter behind which `lab.runtime.seccomp.listener` could not hand it over.
    """
    found = 0
    for name in profile.flags:
        if name not in FLAGS:
            raise UsageError(f"linux.seccomp.flags: {name} is not one of {', '.join(FLAGS)}")
        found |= FLAGS[name]
    if found & FLAGS["SECCOMP_FILTER_FLAG_TSYNC"]:
        found |= TSYNC_ESRCH  # else a thread that can't follow is no error, but a result: its id (seccomp(2))
    if profile.listener_metadata and not profile.listener_path:
        raise UsageError("linux.seccomp.listenerMetadata means nothing without listenerPath")
    if any(rule.action == "SCMP_ACT_NOTIFY" for rule in profile.syscalls):
        if not profile.listener_path:
            raise UsageError("linux.seccomp.listenerPath is missing: SCMP_ACT_NOTIFY needs one who is notified")
        number = numbers(next(iter(MACHINES[os.uname().machine])))["sendmsg"]
        if evaluate(compile(profile), number) not in (Action.ALLOW, Action.LOG):
            raise UsageError("linux.seccomp: sendmsg is not allowed: with it a process hands over who is notified")
        found |= NEW_LISTENER
    elif found & FLAGS["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"]:
        raise UsageError("linux.seccomp.flags: SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV needs SCMP_ACT_NOTIFY")
    return found


def word(action: str, number: int | None) -> int:
    """What the filter returns for ``action``: its number, with an errno where it takes one, by default EPERM."""
    if action not in ACTIONS:
        raise UsageError(f"linux.seccomp: {action} is not one of {', '.join(ACTIONS)}")
    if action not in WITH_NUMBER:
        if number is not None:
            raise UsageError(f"linux.seccomp: {action} takes no errnoRet")
        return ACTIONS[action]
    if number is not None and not 0 <= number <= MAX_ERRNO:
        raise UsageError(f"linux.seccomp: errnoRet {number} is not from 0 to {MAX_ERRNO}")
    return ACTIONS[action] | (EPERM if number is None else number)


def _rule(rule: SeccompRule) -> Rule:
    """Its conditions hold all at once; but where two ask about the same argument, any of them is enough, which
    no other reading would make sense of (and which is runc's).
    """
    conditions = [_condition(argument) for argument in rule.args]
    once = len({condition[0] for condition in conditions}) == len(conditions)
    alternatives: list[Alternative] = [tuple(conditions)] if once else [(condition,) for condition in conditions]
    return rule.names, word(rule.action, rule.errno_ret), alternatives


def _condition(argument: SeccompArgument) -> Condition:
    operator = argument.op.removeprefix("SCMP_CMP_")
    if operator not in OPERATORS:
        raise UsageError(f"linux.seccomp: {argument.op} is not a comparison that libseccomp has")
    if not 0 <= argument.index < ARGUMENTS:
        raise UsageError(f"linux.seccomp: a system call has no argument {argument.index}")
    return argument.index, operator, argument.value, argument.value_two


def _runs(architecture: str, rules: list[Rule], default: int, newer: int) -> Iterator[Run]:
    """The answers to an architecture's calls, in ascending order; behind the last that is named, ``newer``."""
    table = numbers(architecture)
    answers = _answers(architecture, table, [rule for rule in rules if rule[1] != default])
    following = X32_BIT if architecture == "SCMP_ARCH_X32" else 0
    named = [table[name] for names, _, _ in rules for name in names if name in table]
    beyond = max([*named, *answers], default=following - 1) + 1
    for number in sorted(answers):
        if number > following:
            yield following, default
        yield number, answers[number]
        following = number + 1
    if beyond > following:
        yield following, default
    yield beyond, newer if named or answers else default


def _answers(architecture: str, table: dict[str, int], rules: list[Rule]) -> dict[int, Answer]:
    """By number. Where one rule for a call has no condition, it decides, whatever the others say."""
    through = multiplexed() if architecture == "SCMP_ARCH_X86" else {}
    wide = architecture in OF_64_BITS
    found: dict[int, Answer] = {}
    for names, value, alternatives in rules:
        for name in names:
            if name in table:
                for alternative in alternatives:
                    _add(found, name, table[name], (wide, ((alternative, value),)))
            if name in through:
                number, first = through[name]
                for alternative in alternatives:
                    rest = [condition for condition in alternative if condition[0] != 0]
                    _add(found, name, number, (wide, ((((0, "EQ", first, 0), *rest), value),)))
    return found


def _add(found: dict[int, Answer], name: str, number: int, answer: Conditional) -> None:
    held = found.get(number)
    if isinstance(held, int):
        return
    wide, ((conditions, value),) = answer
    if not conditions:
        found[number] = value
    elif held is None:
        found[number] = answer
    else:
        if any(others == conditions and other != value for others, other in held[1]):
            raise UsageError(f"linux.seccomp.syscalls: {name}: two actions under the same conditions")
        found[number] = wide, (*held[1], (conditions, value))


def _refused(architecture: str, default: int) -> list[Run]:
    """x32 calls come under the architecture of x86-64's: where they are not wanted, they are as bad as foreign ones.
    -1 is none of them, but what a tracer sets for a call that is not to be done (ptrace(2), PTRACE_EVENT_SECCOMP).
    """
    return [(X32_BIT, BAD_ARCHITECTURE), (NO_CALL, default)] if architecture == "SCMP_ARCH_X32" else []


def _merged(runs: Iterable[Run]) -> list[Run]:
    found: list[Run] = []
    for run in runs:
        if not found or found[-1][1] != run[1]:
            found.append(run)
    return found


# Writing, from the end to the beginning


def _search(assembler: Assembler, runs: list[Run], written: dict[Answer, int], default: int) -> int:
    """A balanced binary search for the run that holds the loaded number."""
    if len(runs) == 1:
        answer = runs[0][1]
        if isinstance(answer, int):
            return assembler.answer(answer)
        if answer not in written:
            written[answer] = _ask(assembler, answer, default)
        return written[answer]
    middle = len(runs) // 2
    upper = _search(assembler, runs[middle:], written, default)
    lower = _search(assembler, runs[:middle], written, default)
    return assembler.test(JUMP_GREATER_EQUAL, runs[middle][0], upper, lower)


def _ask(assembler: Assembler, answer: Conditional, default: int) -> int:
    """Look at the arguments: the first alternative that holds decides."""
    wide, alternatives = answer
    place = assembler.answer(default)
    for conditions, value in reversed(alternatives):
        no, place = place, assembler.answer(value)
        for condition in reversed(conditions):
            place = _compare(assembler, condition, place, no, wide)
    return place


def _compare(assembler: Assembler, condition: Condition, yes: int, no: int, wide: bool) -> int:
    """Compare an argument, 32 or 64 bits of it; the accumulator has 32, so the upper half comes first."""
    index, operator, value, two = condition
    if operator in ("NE", "LT", "LE"):
        yes, no, operator = no, yes, {"NE": "EQ", "LT": "GE", "LE": "GT"}[operator]
    mask = (1 << 64) - 1
    if operator == "MASKED_EQ":  # the specification's value is the mask, its valueTwo what is to be left
        mask, value, operator = value, two & value, "EQ"
    offset = OFFSET_ARGUMENTS + 8 * index
    code = {"EQ": JUMP_EQUAL, "GT": JUMP_GREATER, "GE": JUMP_GREATER_EQUAL}[operator]
    place = assembler.test(code, value & LOW, yes, no)
    place = _load(assembler, offset, mask & LOW, place)
    if not wide:
        return place
    if operator != "EQ":
        # what follows a failed "greater" needs the same word still loaded: no second load
        equal = assembler.test(JUMP_EQUAL, value >> HIGH, place, no)
        return assembler.load(offset + 4, assembler.test(JUMP_GREATER, value >> HIGH, yes, equal))
    return _load(assembler, offset + 4, mask >> HIGH, assembler.test(JUMP_EQUAL, value >> HIGH, place, no))


def _load(assembler: Assembler, offset: int, mask: int, then: int) -> int:
    return assembler.load(offset, then if mask == LOW else assembler.mask(mask, then))


TO_WAIT = """
    read write close fstat newfstatat lseek mmap mprotect munmap mremap madvise brk rt_sigaction rt_sigprocmask
    rt_sigreturn fcntl getsockname sendmsg recvmsg accept4 access faccessat faccessat2 readlink readlinkat openat poll
    ppoll futex capset getpid dup2 dup3 setpgid wait4 memfd_create pidfd_open pidfd_send_signal kill clone execve
    exit_group"""
"""What `lab.runtime.init` calls between its privileges and execve(2), and for hooks, as this architecture has it."""


def lets_wait(seccomp: str) -> bool:
    """Whether a process behind this filter, base64 as a plan has it, can wait for its start and have hooks run."""
    program, numbers = binascii.a2b_base64(seccomp), native()
    passing = (Action.ALLOW, Action.LOG)
    return all(evaluate(program, numbers[name]) in passing for name in TO_WAIT.split() if name in numbers)
