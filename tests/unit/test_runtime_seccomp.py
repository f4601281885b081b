"""The filter's effect, call by call, against Docker's default profile as other projects ship it."""

from __future__ import annotations

import errno
import json
import platform
import re
from pathlib import Path

import pytest

from lab.runtime import capabilities, seccomp
from lab.runtime.bpf import (
    AND,
    AUDIT_ARCHITECTURES,
    LOAD_WORD,
    RETURN,
    X32_BIT,
    errno_for_newer,
    evaluate,
    instruction,
)  # fmt: skip
from lab.runtime.ranges import shorten
from lab.runtime.seccomp import Action, Verdict

pytestmark = pytest.mark.skipif(platform.machine() != "x86_64", reason="system-call numbers of x86-64")

REFERENCE = Path("/usr/share/containers/seccomp.json")
HEADER = Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h")
ALLOW, EPERM, ENOSYS = Verdict(Action.ALLOW), Verdict(Action.ERRNO, errno.EPERM), Verdict(Action.ERRNO, errno.ENOSYS)

# What moby's profile of today decides otherwise than the older one that Debian 12 ships in REFERENCE.
NOT_ANY_MORE = set(
    # namespaces, mounts and their descriptors, NUMA, keys, reboot: only with a capability
    """clone3 fsconfig fsmount fsopen fspick get_mempolicy keyctl mbind mount mount_setattr move_mount open_tree
    pidfd_getfd pivot_root reboot set_mempolicy setns syslog umount2 unshare""".split()  # noqa: SIM905
)
BY_NOW = {"futex_waitv", "io_pgetevents", "vmsplice"}


@pytest.fixture(scope="module")
def program() -> bytes:
    return seccomp.compile(seccomp.default_profile())


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
        (41, (40, 1, 0), EPERM),  # socket AF_VSOCK
        (135, (0,), ALLOW),  # personality PER_LINUX
        (135, (0xFFFFFFFF,), ALLOW),  # personality, just asking
        (135, (0x0040000,), EPERM),  # personality ADDR_NO_RANDOMIZE
        (100_000, (), ENOSYS),  # newer than all that are known
        (X32_BIT | 0, (), ALLOW),  # read of x32
    ],
)
def test_verdicts(program: bytes, number: int, arguments: tuple[int, ...], verdict: Verdict) -> None:
    assert evaluate(program, number, arguments) == verdict


@pytest.mark.parametrize("architecture", AUDIT_ARCHITECTURES.values())
def test_the_shorter_program_answers_as_libseccomps(program: bytes, architecture: int) -> None:
    long = seccomp.translated(seccomp.default_profile())
    assert len(program) < len(long) / 2
    edges = (0x3FFFFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
    words = (0, 1, 8, 0x11, 40, 0x20008, 0x40000, 0x02000000, 0x10000000, 0xFFFFFFFF, 1 << 32, 1 << 32 | 40)
    for number in (*range(480), *(X32_BIT + number for number in range(560)), *edges):
        for word in words:
            expected = evaluate(long, number, (word,), architecture=architecture)
            assert evaluate(program, number, (word,), architecture=architecture) == expected, (number, word)


def test_what_can_not_be_followed_is_not_shortened() -> None:
    masked = instruction(LOAD_WORD, 0) + instruction(AND, 0xFF) + instruction(RETURN, Action.ALLOW)
    with pytest.raises(ValueError, match="instruction 1"):
        shorten(masked)


def test_32_bit_calls_are_filtered_too(program: bytes) -> None:
    i386 = AUDIT_ARCHITECTURES["i386"]
    assert evaluate(program, 3, architecture=i386) == ALLOW  # read
    assert evaluate(program, 21, architecture=i386) == EPERM  # mount
    assert evaluate(program, 359, (40, 1, 0), architecture=i386) == EPERM  # socket AF_VSOCK


def test_a_foreign_architecture_is_killed(program: bytes) -> None:
    assert evaluate(program, 0, architecture=AUDIT_ARCHITECTURES["aarch64"]).action in (
        Action.KILL_PROCESS, Action.KILL_THREAD,
    )  # fmt: skip


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
    theirs = allowed_by(json.loads(REFERENCE.read_text())) & set(numbers)
    ours = {name for name, number in numbers.items() if kind(program, number) == "allowed"}
    filtered = {name for name, number in numbers.items() if kind(program, number) == "by argument"}
    assert theirs - ours - filtered == NOT_ANY_MORE & set(numbers)
    assert ours - theirs == BY_NOW & set(numbers)


def test_no_call_is_listed_twice() -> None:
    names = [name for group in seccomp.ALLOWED.values() for name in group.split()]
    assert sorted(names) == sorted(set(names))


def test_arm_has_its_own_calls() -> None:
    names = set(seccomp.default_profile("aarch64").syscalls[0].names)
    assert {"cacheflush", "set_tls"} <= names
    assert "arch_prctl" not in names


def test_a_profile_is_compiled_once() -> None:
    assert seccomp.compile(seccomp.default_profile()) is seccomp.compile(seccomp.default_profile())


def test_the_prologue_leaves_known_calls_to_the_program() -> None:
    everything = instruction(0x06, Action.ALLOW)
    native = AUDIT_ARCHITECTURES["x86_64"]
    guarded = errno_for_newer(everything, {native: 100, AUDIT_ARCHITECTURES["i386"]: 50}, errno.ENOSYS)
    assert evaluate(guarded, 100) == ALLOW
    assert evaluate(guarded, 101) == ENOSYS
    assert evaluate(guarded, X32_BIT | 300) == ALLOW
    assert evaluate(guarded, 51, architecture=AUDIT_ARCHITECTURES["i386"]) == ENOSYS


def kind(program: bytes, number: int) -> str:
    cases = ((0,) * 6, (40,), (0x10000000,), (0x123,))
    actions = {evaluate(program, number, arguments).action for arguments in cases}
    return "by argument" if len(actions) > 1 else "allowed" if actions == {Action.ALLOW} else "refused"


def allowed_by(profile: dict[str, list[dict[str, object]]]) -> set[str]:
    """The calls a profile in containers-common's form allows to root with Docker's capabilities on x86-64."""
    found: set[str] = set()
    for rule in profile["syscalls"]:
        wanted, unwanted = rule.get("includes") or {}, rule.get("excludes") or {}
        assert isinstance(wanted, dict)
        assert isinstance(unwanted, dict)
        held = set(capabilities.DOCKER_DEFAULT)
        fits = set(wanted.get("caps") or ()) <= held and not set(unwanted.get("caps") or ()) & held
        fits = fits and "amd64" in (wanted.get("arches") or ["amd64"])
        fits = fits and "amd64" not in (unwanted.get("arches") or [])
        if fits and rule["action"] == "SCMP_ACT_ALLOW":
            names = rule["names"]
            assert isinstance(names, list)
            found.update(names)
    return found
