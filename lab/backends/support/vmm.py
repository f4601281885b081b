"""What a virtual machine monitor may ask of the host's kernel: far less than a container.

QEMU's own filter (`-sandbox on`) names what is refused and lets the rest pass: user namespaces, ptrace, bpf,
io_uring, every kind of socket. This one names what is allowed. It begins with what containers have and leaves out
what no monitor has a use for. A call that is refused fails with EPERM, so that another QEMU, or another C library,
falls back instead of dying. The two hold together: what either refuses is refused.
"""

from __future__ import annotations

import errno
import platform
import socket

from lab.runtime.config.model import Seccomp, SeccompArgument, SeccompRule
from lab.runtime.seccomp import compiler
from lab.runtime.seccomp.profile import ALLOW, ALLOWED, ARCHITECTURES, ARM, NEW_NAMESPACES, REFUSE

LEFT_OUT_GROUPS = frozenset(
    {
        "files: watch, lock down",
        "files: change one's own directory or root",
        "processes: look into those of one's own",
        "System V and POSIX IPC",
    }
)
_OTHERS = """
    mknod mknodat link linkat symlink symlinkat mkdir mkdirat rename renameat renameat2 rmdir
    chown lchown fchown fchownat name_to_handle_at
    setxattr lsetxattr fsetxattr setxattrat removexattr lremovexattr fremovexattr removexattrat
    execveat fork vfork capset modify_ldt pidfd_open pidfd_send_signal process_mrelease ioprio_set
    setuid setgid setreuid setregid setresuid setresgid setfsuid setfsgid setgroups setpgid setsid
    adjtimex clock_adjtime
"""
LEFT_OUT = frozenset(_OTHERS.split())
"""Of the other groups. `execve` is needed once, to become QEMU, whose own filter refuses it from then on."""

THREAD = SeccompArgument(index=0, value=NEW_NAMESPACES, value_two=0, op="SCMP_CMP_MASKED_EQ")
UNIX_SOCKET = SeccompArgument(index=0, value=socket.AF_UNIX, op="SCMP_CMP_EQ")


def vmm_profile() -> Seccomp:
    """The profile in the form of the OCI configuration: this machine's own calls alone, none of 32 bits."""
    machine = platform.machine()
    groups = (names for group, names in ALLOWED.items() if group not in LEFT_OUT_GROUPS)
    names = {name for group in groups for name in group.split()} - LEFT_OUT
    if machine == "aarch64":
        names |= set(ARM.split())
    return Seccomp(
        default_action=REFUSE,
        default_errno_ret=errno.EPERM,
        architectures=ARCHITECTURES[machine][:1],
        syscalls=(
            SeccompRule(names=tuple(sorted(names)), action=ALLOW),
            SeccompRule(names=("socket",), action=ALLOW, args=(UNIX_SOCKET,)),
            SeccompRule(names=("clone",), action=ALLOW, args=(THREAD,)),
            SeccompRule(names=("clone3",), action=REFUSE, errno_ret=errno.ENOSYS),
        ),
    )


def vmm_filter() -> bytes:
    """The profile as a program for seccomp(2)."""
    return compiler.compile(vmm_profile())
