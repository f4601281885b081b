"""How much of the kernel can it reach?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from lab.isolation.base import (
    Answer,
    Context,
    Found,
    Group,
    Inconclusive,
    Mechanism,
    Privilege,
    Reply,
    Severity,
    on_whose_kernel,
)

PERF_SYSTEM_WIDE = "x:" + "01000000" + "70000000" + "00" * 104
"""struct perf_event_attr: PERF_TYPE_SOFTWARE, size 112, PERF_COUNT_SW_CPU_CLOCK, kernel included."""


class Bpf(Privilege):
    """BPF_PROG_GET_NEXT_ID: asks for a number, and needs CAP_SYS_ADMIN for it."""

    id = "bpf"
    question = "Can it use bpf(2)?"
    group = Group.SURFACE
    line = "call bpf 11 z:128 128"
    allowed = frozenset({"", "ENOENT"})
    because = "Docker's 14 capabilities lack CAP_BPF and CAP_SYS_ADMIN, and the filter refuses bpf(2)"


class PerfEvents(Privilege):
    """A counter over everything that runs on processor 0, closed at once."""

    id = "perf-events"
    question = "Can it watch the whole machine with perf_event_open(2)?"
    group = Group.SURFACE
    line = f"call perf_event_open {PERF_SYSTEM_WIDE} -1 0 -1 8"
    allowed = frozenset({""})
    because = "Docker's 14 capabilities lack CAP_PERFMON, and the filter refuses perf_event_open(2)"


class IoUring(Privilege):
    """No entries is an error, but one that only those are told who may have some."""

    id = "io-uring"
    question = "Can it use io_uring?"
    group = Group.SURFACE
    mechanism = Mechanism.SECCOMP
    line = "call io_uring_setup 0 z:120"
    allowed = frozenset({"EINVAL"})
    because = "the filter refuses io_uring_setup(2), the source of many kernel bugs"


class UserFaults(Privilege):
    """Makes races in the kernel easy to win; closed at once."""

    id = "userfaultfd"
    question = "Can it use userfaultfd(2)?"
    group = Group.SURFACE
    mechanism = Mechanism.SECCOMP
    line = "call userfaultfd 0"
    allowed = frozenset({""})
    because = "the filter refuses userfaultfd(2)"


class Keyrings(Privilege):
    """KEYCTL_CAPABILITIES: keyrings have no namespace, so a container's would be the host's."""

    id = "keyrings"
    question = "Can it use the kernel's keyrings?"
    group = Group.SURFACE
    mechanism = Mechanism.SECCOMP
    line = "call keyctl 31 z:8 8"
    allowed = frozenset({"", "EOPNOTSUPP"})
    because = "the filter refuses keyctl(2)"


class _Status(Privilege):
    """Reads a field of /proc/self/status (proc_pid_status(5))."""

    group = Group.SURFACE
    severity = Severity.INFORMATION
    line = "read /proc/self/status"
    allowed = frozenset({""})
    field: ClassVar[str]

    def value(self, seen: Reply) -> str:
        for text in str(seen["text"]).splitlines():
            name, _, value = text.partition(":")
            if name == self.field:
                return value.strip()
        raise Inconclusive(f"/proc/self/status has no {self.field}")

    def found(self, is_free: bool, seen: Sequence[Reply], host: Sequence[Reply], value: float) -> Found:
        answer = on_whose_kernel(seen[-1], host[-1]) if is_free else Answer.NO
        return Found(answer=answer, evidence=f"{self.field}: {self.value(seen[0])}", value=value)


class Capabilities(_Status):
    """Compares the effective capabilities, capabilities(7), with those of lab's own root, which may lack some."""

    id = "capabilities"
    question = "Does its root hold every capability of the host's root?"
    field = "CapEff"
    because = "the runtime leaves it Docker's 14"

    def judge(self, seen: Sequence[Reply], host: Sequence[Reply], context: Context) -> Found:
        held, every = (int(self.value(reply), 16) for reply in (seen[0], host[0]))
        return self.found(held & every == every, seen, host, float(held.bit_count()))


class SystemCallFilter(_Status):
    """Seccomp: 0 no filter, 2 a filter."""

    id = "system-call-filter"
    question = "Is it free of a system call filter?"
    mechanism = Mechanism.SECCOMP
    field = "Seccomp"
    because = "the runtime installs Docker's default filter"

    def judge(self, seen: Sequence[Reply], host: Sequence[Reply], context: Context) -> Found:
        mode = int(self.value(seen[0]))
        return self.found(mode == 0, seen, host, float(mode))


class NewPrivileges(_Status):
    """NoNewPrivs: with 1, execve(2) never gives more than the caller had."""

    id = "new-privileges"
    question = "Could a set-uid program in it gain privileges?"
    field = "NoNewPrivs"
    because = "the runtime sets no_new_privs"

    def judge(self, seen: Sequence[Reply], host: Sequence[Reply], context: Context) -> Found:
        flag = int(self.value(seen[0]))
        return self.found(flag == 0, seen, host, float(flag))
