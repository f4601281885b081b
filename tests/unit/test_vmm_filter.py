"""What QEMU may ask of the kernel, decided by the compiled program."""

from __future__ import annotations

import errno
import socket

import pytest

from lab.backends.support.vmm import LEFT_OUT, LEFT_OUT_GROUPS, vmm_filter
from lab.runtime.seccomp import compiler
from lab.runtime.seccomp.bpf import AUDIT_ARCHITECTURES, Action, evaluate
from lab.runtime.seccomp.profile import ALLOWED, default_profile

NATIVE = compiler.native()
REFUSED = Action.ERRNO | errno.EPERM
CLONE_OF_A_THREAD = 0x3D0F00  # what pthread_create(3) of glibc asks for
CLONE_NEWUSER = 0x10000000


def decide(program: bytes, name: str, *arguments: int) -> int:
    """What the filter answers."""
    return evaluate(program, NATIVE[name], arguments)


@pytest.mark.parametrize(
    "name", ["read", "ioctl", "ppoll", "mmap", "futex", "execve", "recvmsg", "prctl", "io_submit"]
)
def test_what_a_monitor_lives_by_is_allowed(name: str) -> None:
    assert decide(vmm_filter(), name) == Action.ALLOW


@pytest.mark.parametrize(
    "name", ["unshare", "setns", "mount", "bpf", "keyctl", "io_uring_setup", "userfaultfd", "execveat"]
)
def test_what_it_has_no_use_for_is_refused(name: str) -> None:
    assert decide(vmm_filter(), name) == REFUSED


@pytest.mark.parametrize("name", ["ptrace", "process_vm_readv", "shmget", "setresuid", "chroot", "mknod", "fork"])
def test_it_may_less_than_a_container(name: str) -> None:
    assert decide(compiler.compile(default_profile()), name) == Action.ALLOW
    assert decide(vmm_filter(), name) == REFUSED


def test_arguments_decide() -> None:
    program = vmm_filter()
    assert decide(program, "socket", socket.AF_UNIX) == Action.ALLOW
    for family in (socket.AF_INET, socket.AF_INET6, socket.AF_NETLINK, socket.AF_PACKET, 38, 40):
        assert decide(program, "socket", family) == REFUSED
    assert decide(program, "clone", CLONE_OF_A_THREAD) == Action.ALLOW
    assert decide(program, "clone", CLONE_NEWUSER) == REFUSED
    assert decide(program, "clone3") == Action.ERRNO | errno.ENOSYS


def test_calls_of_32_bits_end_it() -> None:
    assert evaluate(vmm_filter(), 3, architecture=AUDIT_ARCHITECTURES["i386"]) == Action.KILL_THREAD
    assert evaluate(vmm_filter(), 0x40000000) == Action.KILL_THREAD, "x32's read"


def test_what_is_left_out_was_there() -> None:
    """A name that the profile of containers no longer has, or has elsewhere, would be left out in vain."""
    assert ALLOWED.keys() > LEFT_OUT_GROUPS
    others = {name for group, names in ALLOWED.items() if group not in LEFT_OUT_GROUPS for name in names.split()}
    assert others >= LEFT_OUT
