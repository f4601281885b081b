"""A filter's effect, call by call: by a plain reading of its rules, by libseccomp, by what other projects ship."""

from __future__ import annotations

import errno
import json
import os
import platform
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import libseccomp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lab
from lab.errors import LabError, UsageError
from lab.runtime.config import capabilities
from lab.runtime.config.model import Seccomp, SeccompArgument, SeccompRule
from lab.runtime.seccomp import calls, compiler, profile
from lab.runtime.seccomp.bpf import AUDIT_ARCHITECTURES, INSTRUCTION, RETURN, Action, Assembler, evaluate, possible
from lab.runtime.seccomp.calls import X32_BIT

pytestmark = pytest.mark.skipif(platform.machine() != "x86_64", reason="system-call numbers of x86-64")

REFERENCE = Path("/usr/share/containers/seccomp.json")
HEADER = Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h")
ALLOW, EPERM, ENOSYS = Action.ALLOW, Action.ERRNO | errno.EPERM, Action.ERRNO | errno.ENOSYS
ALL = ("SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32")
AUDITED = {"SCMP_ARCH_X86_64": "x86_64", "SCMP_ARCH_X86": "i386", "SCMP_ARCH_X32": "x86_64"}
WORDS = (0, 1, 2, 8, 0x11, 40, 0x20008, 0x40000, 0x02000000, 0x10000000, 0xFFFFFFFF, 1 << 32, 1 << 32 | 40, 1 << 63)

# What moby's profile of today decides otherwise than the older one that Debian 12 ships in REFERENCE.
NOT_ANY_MORE = set(
    # namespaces, mounts and their descriptors, NUMA, keys, reboot: only with a capability
    """clone3 fsconfig fsmount fsopen fspick get_mempolicy keyctl mbind mount mount_setattr move_mount open_tree
    pidfd_getfd pivot_root reboot set_mempolicy setns syslog umount2 unshare""".split()  # noqa: SIM905
)
BY_NOW = {"futex_waitv", "io_pgetevents", "vmsplice"}


@pytest.fixture(scope="module")
def program() -> bytes:
    return compiler.compile(profile.default_profile())


@pytest.fixture(scope="module")
def numbers() -> dict[str, int]:
    if not HEADER.exists():
        pytest.skip("needs linux-libc-dev")
    return {name: int(value) for name, value in re.findall(r"__NR_(\w+) (\d+)", HEADER.read_text())}


@pytest.mark.parametrize(
    ("number", "arguments", "verdict"),
    [
        (0, (), ALLOW),  # read
        (101, (), ALLOW),  # ptrace
        (165, (), EPERM),  # mount
        (250, (), EPERM),  # keyctl
        (321, (), EPERM),  # bpf
        (425, (), EPERM),  # io_uring_setup
        (435, (), ENOSYS),  # clone3: the C library falls back on clone
        (56, (0x11,), ALLOW),  # clone as fork
        (56, (0x10000000,), EPERM),  # clone with CLONE_NEWUSER
        (56, (0x02000000,), EPERM),  # clone with CLONE_NEWCGROUP
        (41, (2, 1, 0), ALLOW),  # socket AF_INET
        (41, (16, 3, 0), ALLOW),  # socket AF_NETLINK
        (41, (44, 3, 0), ALLOW),  # socket AF_XDP
        (41, (12, 1, 0), EPERM),  # socket AF_DECnet, which Linux has removed
        (41, (38, 5, 0), EPERM),  # socket AF_ALG
        (41, (40, 1, 0), EPERM),  # socket AF_VSOCK
        (41, (46, 1, 0), EPERM),  # socket of a family to come
        (41, (1 << 32 | 2, 1, 0), EPERM),  # what a filter must not take for AF_INET
        (135, (0,), ALLOW),  # personality PER_LINUX
        (135, (0xFFFFFFFF,), ALLOW),  # personality, just asking
        (135, (0x0040000,), EPERM),  # personality ADDR_NO_RANDOMIZE
        (451, (), ALLOW),  # cachestat: libseccomp 2.5 doesn't know it, we do
        (100_000, (), ENOSYS),  # newer than all that are known
        (X32_BIT | 0, (), ALLOW),  # read of x32
    ],
)
def test_verdicts(program: bytes, number: int, arguments: tuple[int, ...], verdict: int) -> None:
    assert evaluate(program, number, arguments) == verdict


def test_32_bit_calls_are_filtered_too(program: bytes) -> None:
    i386 = AUDIT_ARCHITECTURES["i386"]
    assert evaluate(program, 3, architecture=i386) == ALLOW  # read
    assert evaluate(program, 21, architecture=i386) == EPERM  # mount
    assert evaluate(program, 359, (2, 1, 0), architecture=i386) == ALLOW  # socket AF_INET
    assert evaluate(program, 359, (40, 1, 0), architecture=i386) == EPERM  # socket AF_VSOCK
    for call in range(1, 21):  # socketcall, whose arguments no filter can see
        assert evaluate(program, 102, (call,), architecture=i386) == ENOSYS


def test_a_foreign_architecture_is_killed(program: bytes) -> None:
    assert evaluate(program, 0, architecture=AUDIT_ARCHITECTURES["aarch64"]) == Action.KILL_THREAD


def test_an_architecture_that_is_not_listed_is_killed_but_the_machines_own() -> None:
    alone = compiler.compile(filter_of("SCMP_ACT_ERRNO", (rule("SCMP_ACT_ALLOW", "read"),), architectures=()))
    assert evaluate(alone, 0) == ALLOW
    assert evaluate(alone, X32_BIT) == Action.KILL_THREAD
    assert evaluate(alone, 0xFFFFFFFF) == EPERM, "a call that a tracer skips"
    assert evaluate(alone, 3, architecture=AUDIT_ARCHITECTURES["i386"]) == Action.KILL_THREAD


def test_the_count_over_a_table_of_linux_6_1(program: bytes, numbers: dict[str, int]) -> None:
    if len(numbers) != 362:
        pytest.skip("another version of the kernel's headers")
    kinds = {name: kind(program, number) for name, number in numbers.items()}
    assert list(kinds.values()).count("allowed") == 292
    assert {name for name, value in kinds.items() if value == "by argument"} == {"clone", "personality", "socket"}
    assert list(kinds.values()).count("refused") == 67


def test_against_the_profile_that_debian_ships(program: bytes, numbers: dict[str, int]) -> None:
    if not REFERENCE.exists():
        pytest.skip("needs golang-github-containers-common")
    allowed = {
        name
        for each in of_podman().syscalls
        if each.action == "SCMP_ACT_ALLOW"
        for name in each.names
        if not each.args
    }
    theirs = allowed & set(numbers)
    ours = {name for name, number in numbers.items() if kind(program, number) == "allowed"}
    filtered = {name for name, number in numbers.items() if kind(program, number) == "by argument"}
    assert theirs - ours - filtered == NOT_ANY_MORE & set(numbers)
    assert ours - theirs == BY_NOW & set(numbers)


def test_no_call_is_listed_twice() -> None:
    names = [name for group in profile.ALLOWED.values() for name in group.split()]
    assert sorted(names) == sorted(set(names))


def test_arm_has_its_own_calls() -> None:
    mine = profile.default_profile("aarch64")
    assert {"cacheflush", "set_tls"} <= set(mine.syscalls[0].names)
    assert "arch_prctl" not in mine.syscalls[0].names
    program = compiler.compile(mine, "aarch64")
    assert evaluate(program, 63, architecture=AUDIT_ARCHITECTURES["aarch64"]) == ALLOW  # read
    assert evaluate(program, 40, architecture=AUDIT_ARCHITECTURES["aarch64"]) == EPERM  # mount
    assert evaluate(program, 0xF0002, architecture=AUDIT_ARCHITECTURES["arm"]) == ALLOW  # cacheflush
    assert evaluate(program, 0) == Action.KILL_THREAD


def test_a_profile_is_compiled_once() -> None:
    assert compiler.compile(profile.default_profile()) is compiler.compile(profile.default_profile())


# The numbers, against libseccomp and the kernel's header


@pytest.mark.parametrize("architecture", calls.TABLES)
def test_numbers_are_libseccomps(architecture: str) -> None:
    library = libseccomp.load()
    known = calls.numbers(architecture)
    through_another = calls.multiplexed() if architecture == "SCMP_ARCH_X86" else {}
    theirs = {name: libseccomp.resolve(library, architecture, name) for name in known}
    differing = {name: theirs[name] for name in known if theirs[name] not in (known[name], libseccomp.UNKNOWN)}
    assert set(differing) <= set(through_another), "it has numbers of its own for those"
    newer = {name for name in known if theirs[name] == libseccomp.UNKNOWN}
    assert all(known[name] & ~X32_BIT > 440 or name == "uretprobe" for name in newer)


def test_no_number_of_the_kernels_header_is_missing(numbers: dict[str, int]) -> None:
    known = calls.numbers("SCMP_ARCH_X86_64")
    assert {name: number for name, number in numbers.items() if known.get(name) != number} == {}


# Decisions, against libseccomp


def of_podman() -> Seccomp:
    """containers-common's profile as podman hands it to a runtime, for root with Docker's capabilities."""
    if not REFERENCE.exists():
        pytest.skip("needs golang-github-containers-common")
    held = set(capabilities.DOCKER_DEFAULT)
    rules = []
    for each in json.loads(REFERENCE.read_text())["syscalls"]:
        wanted, unwanted = each.get("includes") or {}, each.get("excludes") or {}
        fits = set(wanted.get("caps") or ()) <= held and not set(unwanted.get("caps") or ()) & held
        fits = fits and "amd64" in (wanted.get("arches") or ["amd64"])
        if fits and "amd64" not in (unwanted.get("arches") or []):
            arguments = tuple(
                SeccompArgument(
                    index=one["index"], value=one["value"], value_two=one.get("valueTwo") or 0, op=one["op"]
                )
                for one in each.get("args") or ()
            )
            rules.append(
                SeccompRule(
                    names=tuple(each["names"]), action=each["action"], errno_ret=each.get("errnoRet"), args=arguments
                )
            )
    return Seccomp(default_action="SCMP_ACT_ERRNO", default_errno_ret=38, architectures=ALL, syscalls=tuple(rules))


@pytest.mark.parametrize("which", ["podman's", "lab's"])
def test_every_call_is_decided_as_libseccomp_does(which: str) -> None:
    known = of_podman() if which == "podman's" else profile.default_profile()
    ours, theirs = compiler.compile(known), libseccomp.compile(known)
    assert len(ours) < len(theirs) * 0.6
    library = libseccomp.load()
    newest = {name: libseccomp.newest(library, known, name) for name in ALL}
    for architecture in ALL:
        bit = X32_BIT if architecture == "SCMP_ARCH_X32" else 0
        table = calls.numbers(architecture)
        ours_alone = {table[name] for name in table if libseccomp.resolve(library, architecture, name) == -1}
        audited = AUDIT_ARCHITECTURES[AUDITED[architecture]]
        for number in range(bit, bit + 600):
            if number > newest[architecture] or number in ours_alone:
                assert evaluate(ours, number, architecture=audited) in (ENOSYS, ALLOW, EPERM)
                continue
            for word in WORDS:
                expected = evaluate(theirs, number, (word,), architecture=audited)
                assert evaluate(ours, number, (word,), architecture=audited) == expected, (architecture, number, word)


ACTIONS = st.sampled_from(sorted(set(compiler.ACTIONS) - {"SCMP_ACT_NOTIFY"}))
VALUES = st.sampled_from((*WORDS, 3, 5, 0x80000000, (1 << 32) + 3, (1 << 64) - 1)) | st.integers(0, (1 << 64) - 1)
ARGUMENTS = st.lists(
    st.builds(
        SeccompArgument,
        index=st.integers(0, 3),
        value=VALUES,
        value_two=VALUES,
        op=st.sampled_from([f"SCMP_CMP_{name}" for name in compiler.OPERATORS]),
    ),
    max_size=3,
).map(tuple)
CALLS = ("read", "clone", "fcntl64", "execve", "ioctl", "futex", "mmap2", "openat")


@given(
    ACTIONS,
    ACTIONS,
    st.lists(st.tuples(st.sampled_from(CALLS), ARGUMENTS), unique_by=lambda each: each[0]),
    st.data(),
)
@settings(max_examples=150, deadline=None)
def test_every_comparison_is_libseccomps(
    default: str, action: str, asked: list[tuple[str, tuple[SeccompArgument, ...]]], data: st.DataObject
) -> None:
    """One rule for each call: with several, libseccomp 2.5.4 compares with whatever argument it loaded last."""
    rules = tuple(rule(action, name, *arguments) for name, arguments in asked if distinct(arguments))
    made = filter_of(default, rules)
    ours = compiler.compile(made)
    architecture = data.draw(st.sampled_from(ALL))
    theirs = libseccomp.compile(made, architecture)
    table, audited = calls.numbers(architecture), AUDIT_ARCHITECTURES[AUDITED[architecture]]
    values = data.draw(st.tuples(VALUES, VALUES, VALUES, VALUES))
    for name in CALLS:
        if name in table and any(name in each.names for each in rules):
            expected = evaluate(theirs, table[name], values, architecture=audited)
            assert evaluate(ours, table[name], values, architecture=audited) == expected


# … and by a plain reading, where libseccomp can't be trusted


@given(ACTIONS, st.lists(st.tuples(ACTIONS, st.sampled_from(CALLS), ARGUMENTS), max_size=6), st.data())
@settings(max_examples=150, deadline=None)
def test_the_first_rule_that_holds_decides(
    default: str, asked: list[tuple[str, str, tuple[SeccompArgument, ...]]], data: st.DataObject
) -> None:
    made = filter_of(default, tuple(rule(action, name, *arguments) for action, name, arguments in asked))
    if contradicts(made):
        with pytest.raises(UsageError, match="two actions under the same conditions"):
            compiler.compile(made)
        return
    program = compiler.compile(made)
    values = data.draw(st.tuples(VALUES, VALUES, VALUES, VALUES))
    table = calls.numbers("SCMP_ARCH_X86_64")
    for name in (name for name in CALLS if name in table):
        verdict = evaluate(program, table[name], values)
        assert verdict in (reading(made, name, values), ENOSYS)
        if verdict == ENOSYS:
            assert default not in compiler.LETTING_PASS
            assert all(table[name] > table[each] for _, each, _ in asked if each in table)


def reading(made: Seccomp, name: str, values: tuple[int, ...]) -> int:
    default = compiler.word(made.default_action, None)
    found = [each for each in made.syscalls if name in each.names and compiler.word(each.action, None) != default]
    for each in sorted(found, key=lambda each: bool(each.args)):  # one without conditions decides
        held = [holds(argument, values[argument.index]) for argument in each.args]
        if all(held) if distinct(each.args) else any(held):
            return compiler.word(each.action, None)
    return default


def holds(argument: SeccompArgument, value: int) -> bool:
    mask, wanted = argument.value, argument.value_two & argument.value
    return {
        "NE": value != argument.value, "EQ": value == argument.value, "LT": value < argument.value,
        "LE": value <= argument.value, "GT": value > argument.value, "GE": value >= argument.value,
        "MASKED_EQ": value & mask == wanted,
    }[argument.op.removeprefix("SCMP_CMP_")]  # fmt: skip


def contradicts(made: Seccomp) -> bool:
    """libseccomp says EEXIST then."""
    default = compiler.word(made.default_action, None)
    certain: set[str] = set()
    held: dict[object, int] = {}
    for each in made.syscalls:
        word = compiler.word(each.action, None)
        for name in each.names if word != default else ():
            alternatives = [each.args] if distinct(each.args) else [(argument,) for argument in each.args]
            if not each.args:
                certain.add(name)
            for one in alternatives if name not in certain else ():
                if held.setdefault((name, one), word) != word:
                    return True
    return False


def distinct(arguments: tuple[SeccompArgument, ...]) -> bool:
    return len({each.index for each in arguments}) == len(arguments)


# What else can be said, and what can't


def test_an_errno_of_ones_own_and_a_tracer_that_is_told_a_number() -> None:
    made = filter_of(
        "SCMP_ACT_ALLOW",
        (rule("SCMP_ACT_ERRNO", "read", errno_ret=0), rule("SCMP_ACT_TRACE", "write", errno_ret=7)),
    )
    program = compiler.compile(made)
    assert evaluate(program, 0) == Action.ERRNO
    assert evaluate(program, 1) == Action.TRACE | 7
    assert evaluate(program, 999) == ALLOW, "a default that lets pass lets newer calls pass too"


def test_a_call_that_is_named_is_none_that_nobody_could_know() -> None:
    """Even where the profile says of it what happens anyway."""
    rules = (rule("SCMP_ACT_ALLOW", "read"), rule("SCMP_ACT_ERRNO", "listmount"))
    program = compiler.compile(filter_of("SCMP_ACT_ERRNO", rules))
    assert [evaluate(program, number) for number in (0, 1, 457, 458, 459)] == [ALLOW, EPERM, EPERM, EPERM, ENOSYS]


def test_what_is_named_with_the_defaults_own_answer_is_known_too() -> None:
    program = compiler.compile(filter_of("SCMP_ACT_ERRNO", (rule("SCMP_ACT_ERRNO", "write"),)))
    assert [evaluate(program, number) for number in (0, 1, 2, 1000)] == [EPERM, EPERM, ENOSYS, ENOSYS]


def test_a_call_through_socketcall_is_filtered_like_the_call_itself() -> None:
    program = compiler.compile(filter_of("SCMP_ACT_ALLOW", (rule("SCMP_ACT_ERRNO", "connect", "semop"),)))
    i386 = AUDIT_ARCHITECTURES["i386"]
    assert evaluate(program, 362, architecture=i386) == EPERM
    assert evaluate(program, 102, (3,), architecture=i386) == EPERM
    assert evaluate(program, 102, (2,), architecture=i386) == ALLOW
    assert evaluate(program, 117, (1,), architecture=i386) == EPERM


def test_conditions_of_a_call_through_another_are_kept_but_that_of_its_first_argument() -> None:
    """ipc(2) has the call's number there, and the call's own first argument elsewhere."""
    asked = [SeccompArgument(index=index, value=5, op="SCMP_CMP_EQ") for index in (0, 1)]
    program = compiler.compile(filter_of("SCMP_ACT_ALLOW", (rule("SCMP_ACT_ERRNO", "semop", *asked),)))
    i386 = AUDIT_ARCHITECTURES["i386"]
    verdicts = [
        evaluate(program, 117, arguments, architecture=i386) for arguments in ((1, 5), (1, 6), (2, 5), (5, 5))
    ]
    assert verdicts == [EPERM, ALLOW, ALLOW, ALLOW]


@pytest.mark.parametrize(("index", "operator", "word"), [(0, "EQUAL", "EQUAL"), (6, "EQ", "6"), (-1, "EQ", "-1")])
def test_a_condition_that_can_not_be_is_refused(index: int, operator: str, word: str) -> None:
    asked = SeccompArgument(index=index, value=1, op=f"SCMP_CMP_{operator}")
    with pytest.raises(UsageError, match=word):
        compiler.compile(filter_of("SCMP_ACT_ALLOW", (rule("SCMP_ACT_ERRNO", "read", asked),)))


def test_two_actions_under_the_same_conditions_are_refused() -> None:
    asked = SeccompArgument(index=5, value=1, op="SCMP_CMP_EQ")
    rules = tuple(rule(action, "read", asked) for action in ("SCMP_ACT_ERRNO", "SCMP_ACT_LOG"))
    with pytest.raises(UsageError, match="read"):
        compiler.compile(filter_of("SCMP_ACT_ALLOW", rules))
    assert compiler.compile(filter_of("SCMP_ACT_ALLOW", rules[:1] * 2))


def test_the_machines_own_calls() -> None:
    assert compiler.native() == calls.numbers("SCMP_ARCH_X86_64")


def test_of_another_machine_no_calls_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "uname", lambda: SimpleNamespace(machine="riscv64"))
    with pytest.raises(LabError, match="no table of system calls for riscv64"):
        compiler.native()


def test_errnos_at_the_edge() -> None:
    made = filter_of("SCMP_ACT_ALLOW", (rule("SCMP_ACT_ERRNO", "read", errno_ret=4095),))
    assert evaluate(compiler.compile(made), 0) == Action.ERRNO | 4095


@pytest.mark.parametrize(
    ("made", "complaint"),
    [
        (Seccomp(default_action="SCMP_ACT_ALLOW", default_errno_ret=3), "SCMP_ACT_ALLOW takes no errnoRet"),
        (Seccomp(default_action="SCMP_ACT_ERRNO", default_errno_ret=4096), "errnoRet 4096 is not from 0 to 4095"),
        (Seccomp(default_action="SCMP_ACT_NOTIFY"), "can't be the default"),
        (Seccomp(default_action="SCMP_ACT_PANIC"), "SCMP_ACT_PANIC is not one of"),
    ],
)
def test_what_can_not_be_is_refused(made: Seccomp, complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint):
        compiler.compile(made)


def test_a_machine_of_which_no_table_is_known_is_refused() -> None:
    with pytest.raises(UsageError, match="no table of system calls for riscv64"):
        compiler.compile(Seccomp(default_action="SCMP_ACT_ALLOW"), "riscv64")


def test_flags_and_who_is_notified() -> None:
    every = tuple(compiler.FLAGS)
    asked = (rule("SCMP_ACT_NOTIFY", "mkdir"),)
    made = Seccomp(default_action="SCMP_ACT_ALLOW", flags=every, listener_path="/run/agent", syscalls=asked)
    assert compiler.flags(made) == 1 | 2 | 4 | 8 | 16 | 32
    assert compiler.flags(Seccomp(default_action="SCMP_ACT_ALLOW", listener_path="/run/agent", syscalls=asked)) == 8
    assert compiler.flags(Seccomp(default_action="SCMP_ACT_ALLOW", flags=every[:3])) == 1 | 2 | 4 | 16
    found = {name: compiler.flags(Seccomp(default_action="SCMP_ACT_ALLOW", flags=(name,))) for name in every[:3]}
    assert found == {every[0]: 1 | 16, every[1]: 2, every[2]: 4}
    for wrong, complaint in (
        (Seccomp(default_action="SCMP_ACT_ALLOW", flags=("SECCOMP_FILTER_FLAG_NONE",)), "FLAG_NONE is not one of"),
        (Seccomp(default_action="SCMP_ACT_ALLOW", syscalls=asked), "listenerPath is missing"),
        (Seccomp(default_action="SCMP_ACT_ALLOW", listener_metadata="x"), "means nothing without listenerPath"),
        (Seccomp(default_action="SCMP_ACT_ALLOW", flags=every[3:]), "needs SCMP_ACT_NOTIFY"),
    ):
        with pytest.raises(UsageError, match=complaint):
            compiler.flags(wrong)


def test_jumps_farther_than_eight_bits() -> None:
    """A rule with a hundred alternatives for each of many calls: tests reach their answers over stepping stones."""
    many = tuple(SeccompArgument(index=0, value=value << 32, op="SCMP_CMP_EQ") for value in range(1, 101))
    rules = tuple(
        rule("SCMP_ACT_ALLOW", name, *many[number:]) for number, name in enumerate(("read", "open", "ioctl"))
    )
    program = compiler.compile(filter_of("SCMP_ACT_ERRNO", rules))
    assert len(program) // INSTRUCTION.size > 1000
    for number in (0, 2, 16):
        assert evaluate(program, number, (100 << 32,)) == ALLOW
        assert evaluate(program, number, (101 << 32,)) == EPERM
    assert (evaluate(program, 0, (1 << 32,)), evaluate(program, 2, (1 << 32,))) == (ALLOW, EPERM)


def test_one_return_serves_all_that_are_near() -> None:
    assembler = Assembler()
    first = assembler.answer(ALLOW)
    assert assembler.answer(ALLOW) == first
    assert [code for code, *_ in INSTRUCTION.iter_unpack(assembler.assemble())] == [RETURN]


def test_compiling_imports_nothing_that_costs() -> None:
    source = str(Path(lab.__file__).parent.parent)
    code = f"import sys; sys.path.insert(0, {source!r}); import lab.runtime.seccomp.compiler; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], check=True, capture_output=True, text=True)
    costly = {"typing", "dataclasses", "enum", "re", "inspect", "pathlib", "contextlib", "functools", "ctypes"}
    assert not set(done.stdout.split()) & costly


def rule(action: str, *names_and_arguments: str | SeccompArgument, errno_ret: int | None = None) -> SeccompRule:
    return SeccompRule(
        action=action,
        names=tuple(each for each in names_and_arguments if isinstance(each, str)),
        args=tuple(each for each in names_and_arguments if isinstance(each, SeccompArgument)),
        errno_ret=errno_ret,
    )


def filter_of(default: str, rules: tuple[SeccompRule, ...], architectures: tuple[str, ...] = ALL) -> Seccomp:
    return Seccomp(default_action=default, architectures=architectures, syscalls=rules)


def kind(program: bytes, number: int) -> str:
    cases = ((0,) * 6, (40,), (0x10000000,), (0x123,))
    answers = {evaluate(program, number, arguments) for arguments in cases}
    return "by argument" if len(answers) > 1 else "allowed" if answers == {ALLOW} else "refused"


@given(st.sampled_from(sorted(compiler.native().items())), st.lists(st.integers(0, (1 << 64) - 1), max_size=6))
def test_what_a_filter_returns_is_among_what_it_may(call: tuple[str, int], arguments: list[int]) -> None:
    program = compiler.compile(profile.default_profile())
    may = possible(program, call[1])
    assert evaluate(program, call[1], arguments) in may
    if len(may) > 1:
        assert call[0] in {name for rule in profile.default_profile().syscalls if rule.args for name in rule.names}
