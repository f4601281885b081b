"""Whose kernel is it?"""

from __future__ import annotations

from lab.isolation.base import Answer, Group, HostValue, Mechanism, Severity, expect, expectations

SHARED = expectations(
    bare=expect(Answer.HOST, because="there is one kernel, and it is the host's"),
    container=expect(Answer.HOST, because="a container shares the host's kernel; no namespace covers this"),
    own_kernel=expect(Answer.OWN, because="the guest booted a kernel of its own"),
)


class _Shared(HostValue):
    group = Group.KERNEL
    mechanism = Mechanism.NONE
    severity = Severity.INFORMATION
    expected = SHARED


class KernelRelease(_Shared):
    """The whole version string: a release alone may be equal by chance."""

    id = "kernel-release"
    question = "Which kernel answers its system calls?"
    path = "/proc/version"


class BootId(_Shared):
    """random(4): drawn once per boot of a kernel."""

    id = "boot-id"
    question = "Whose boot id does it see?"
    path = "/proc/sys/kernel/random/boot_id"


class CommandLine(_Shared):
    """What the boot loader told the kernel, which may hold secrets of the host."""

    id = "kernel-command-line"
    question = "Whose kernel command line does it see?"
    path = "/proc/cmdline"


class MemoryTotal(_Shared):
    """Programs that size themselves by MemTotal ignore their cgroup's limit."""

    id = "memory-total"
    question = "How much memory does it believe to have?"
    path = "/proc/meminfo"

    def essence(self, text: str) -> str:
        return str(text).partition("\n")[0].strip()
