"""How much of the kernel can it reach?"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import ClassVar

from lab.isolation.base import (
    BOOT_ID,
    EVERY_ID,
    Answer,
    Context,
    Found,
    Group,
    Inconclusive,
    Mechanism,
    Privilege,
    Reply,
    Severity,
    expect,
    on_whose_kernel,
)

PR_GET_NO_NEW_PRIVS = 39
PERF_SYSTEM_WIDE = "x:" + "01000000" + "70000000" + "00" * 104
"""struct perf_event_attr: PERF_TYPE_SOFTWARE, size 112, PERF_COUNT_SW_CPU_CLOCK, kernel included."""


UNFILTERED = expect(Answer.YES, because="no filter refuses it, and the kernel asks for no capability")
ALLOWED = expect(Answer.YES, because="nspawn's filter allows it, and the kernel asks for no capability")


class Bpf(Privilege):
    """BPF_PROG_GET_NEXT_ID: asks for a number, and needs CAP_SYS_ADMIN for it."""

    id = "bpf"
    question = "Can it use bpf(2)?"
    pages = ("bpf(2)", "capabilities(7)")
    group = Group.SURFACE
    line = "call bpf 11 z:128 128"
    allowed = frozenset({"", "ENOENT"})
    because = "Docker's 14 capabilities lack CAP_BPF and CAP_SYS_ADMIN, and the filter refuses bpf(2)"


class PerfEvents(Privilege):
    """A counter over everything that runs on processor 0, closed at once."""

    id = "perf-events"
    question = "Can it watch the whole machine with perf_event_open(2)?"
    pages = ("perf_event_open(2)", "capabilities(7)")
    group = Group.SURFACE
    line = f"call perf_event_open {PERF_SYSTEM_WIDE} -1 0 -1 8"
    allowed = frozenset({""})
    refused = Privilege.refused | {"ENODEV"}
    because = "Docker's 14 capabilities lack CAP_PERFMON, and the filter refuses perf_event_open(2)"
    user_mode = expect(Answer.NO, because="its kernel has no perf_event_open(2)")


class IoUring(Privilege):
    """No entries is an error, but one that only those are told who may have some."""

    id = "io-uring"
    question = "Can it use io_uring?"
    pages = ("io_uring_setup(2)", "seccomp(2)")
    group = Group.SURFACE
    mechanism = Mechanism.SECCOMP
    line = "call io_uring_setup 0 z:120"
    allowed = frozenset({"EINVAL"})
    because = "the filter refuses io_uring_setup(2), the source of many kernel bugs"
    nspawn = ALLOWED
    docker = expect(Answer.YES, Answer.NO, because="its filter refuses it since Docker 25 only")
    bubblewrap = UNFILTERED


class UserFaults(Privilege):
    """Makes races in the kernel easy to win; closed at once."""

    id = "userfaultfd"
    question = "Can it use userfaultfd(2)?"
    pages = ("userfaultfd(2)", "seccomp(2)")
    group = Group.SURFACE
    mechanism = Mechanism.SECCOMP
    line = "call userfaultfd 0"
    allowed = frozenset({""})
    because = "the filter refuses userfaultfd(2)"
    nspawn = expect(
        Answer.YES, Answer.NO, because="its filter allows it, and the kernel with CAP_SYS_PTRACE, if set so"
    )
    bubblewrap = expect(
        Answer.NO, Answer.YES, because="no filter refuses it, but the kernel without CAP_SYS_PTRACE, if set so"
    )


class Keyrings(Privilege):
    """KEYCTL_CAPABILITIES: keyrings have no namespace, so a container's would be the host's."""

    id = "keyrings"
    question = "Can it use the kernel's keyrings?"
    pages = ("keyctl(2)", "keyrings(7)")
    group = Group.SURFACE
    mechanism = Mechanism.SECCOMP
    line = "call keyctl 31 z:8 8"
    allowed = frozenset({"", "EOPNOTSUPP"})
    because = "the filter refuses keyctl(2)"
    podman = expect(Answer.YES, because="the filter of podman's distribution allows keyctl(2)")
    bubblewrap = UNFILTERED


class WatchFiles(Privilege):
    """fanotify_init(2) of the class that needs CAP_SYS_ADMIN; closed at once."""

    id = "watch-files"
    question = "Can it watch every access to a file system?"
    group = Group.SURFACE
    line = "call fanotify_init 0 0"
    allowed = frozenset({""})
    pages = ("fanotify_init(2)",)
    because = "Docker's 14 capabilities lack CAP_SYS_ADMIN, and the filter refuses fanotify_init(2)"


class MemoryPolicy(Privilege):
    """set_mempolicy(2) to the default, which it has already."""

    id = "memory-policy"
    question = "Can it choose on which nodes its memory lies?"
    group = Group.SURFACE
    mechanism = Mechanism.SECCOMP
    severity = Severity.INFORMATION
    line = "call set_mempolicy 0 0 0"
    allowed = frozenset({""})
    pages = ("set_mempolicy(2)", "numa(7)")
    because = "the filter refuses set_mempolicy(2) without CAP_SYS_NICE"
    nspawn = ALLOWED
    podman = expect(Answer.YES, because="the filter of podman's distribution allows set_mempolicy(2)")
    bubblewrap = UNFILTERED
    user_space = expect(Answer.GUEST, because="its kernel keeps the policy of its one node")
    user_mode = expect(Answer.NO, because="its kernel knows no nodes, and has no set_mempolicy(2)")
    libkrun = user_mode


class Personality(Privilege):
    """personality(ADDR_NO_RANDOMIZE), in a process that ends at once. The filter looks at the argument: it lets the
    harmless ones pass.
    """

    id = "address-randomisation"
    question = "Can it switch the randomisation of addresses off?"
    group = Group.SURFACE
    mechanism = Mechanism.SECCOMP
    severity = Severity.INFORMATION
    line = "call personality 0x40000"
    allowed = frozenset({""})
    refused = Privilege.refused | {"EINVAL"}
    pages = ("personality(2)", "seccomp(2)")
    because = "the filter allows only five arguments of personality(2), and this is none of them"
    nspawn = ALLOWED
    bubblewrap = UNFILTERED


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
    """Compares the effective capabilities, capabilities(7), with those of lab's own root, which may lack some; where
    that is an ordinary user, root of a namespace, they are another's than the host's.
    """

    id = "capabilities"
    question = "Does its root hold every capability of the host's root?"
    pages = ("capabilities(7)",)
    field = "CapEff"
    because = "the runtime leaves it Docker's 14"

    def lines(self, context: Context) -> Sequence[str]:
        return (self.line, "read /proc/self/uid_map 100", BOOT_ID)

    def judge(self, seen: Sequence[Reply], host: Sequence[Reply], context: Context) -> Found:
        if " ".join(str(host[1].get("text", "")).split()) != EVERY_ID:
            raise Inconclusive("lab's own root is that of a user namespace, in which alone its capabilities count")
        held, every = (int(self.value(reply), 16) for reply in (seen[0], host[0]))
        return self.found(held & every == every, seen, host, float(held.bit_count()))


class SystemCallFilter(_Status):
    """Seccomp: 0 no filter, 2 a filter."""

    id = "system-call-filter"
    question = "Is it free of a system call filter?"
    pages = ("seccomp(2)",)
    mechanism = Mechanism.SECCOMP
    field = "Seccomp"
    because = "the runtime installs Docker's default filter"
    bubblewrap = expect(Answer.YES, because="bwrap installs the filter that it is given, and is given none")
    user_space = expect(
        Answer.GUEST,
        because="runsc loads the configuration's filter only where it is told to; the Sentry itself has one",
    )

    def judge(self, seen: Sequence[Reply], host: Sequence[Reply], context: Context) -> Found:
        mode = int(self.value(seen[0]))
        return self.found(mode == 0, seen, host, float(mode))


class NewPrivileges(_Status):
    """NoNewPrivs: with 1, execve(2) never gives more than the caller had. Where there is no such field, prctl(2) is
    asked for the same flag.
    """

    id = "new-privileges"
    question = "Could a set-uid program in it gain privileges?"
    pages = ("PR_SET_NO_NEW_PRIVS(2const)", "execve(2)")
    field = "NoNewPrivs"
    because = "the runtime sets no_new_privs"
    nspawn = expect(Answer.YES, because="nspawn sets no_new_privs where --no-new-privileges asks for it")
    bubblewrap = expect(Answer.NO, because="bwrap sets no_new_privs, always")
    docker = expect(Answer.YES, because="Docker sets no_new_privs where --security-opt asks for it")

    def lines(self, context: Context) -> Sequence[str]:
        return (self.line, f"call prctl {PR_GET_NO_NEW_PRIVS} 0 0 0 0", BOOT_ID)

    def judge(self, seen: Sequence[Reply], host: Sequence[Reply], context: Context) -> Found:
        with suppress(Inconclusive):
            flag = int(self.value(seen[0]))
            return self.found(flag == 0, seen, host, float(flag))
        if seen[1]["errno"]:
            raise Inconclusive(f"/proc/self/status has no {self.field}, and prctl(2) says {seen[1]['name']}")
        flag = int(seen[1]["ret"])
        answer = on_whose_kernel(seen[-1], host[-1]) if flag == 0 else Answer.NO
        return Found(answer=answer, evidence=f"PR_GET_NO_NEW_PRIVS: {flag}", value=float(flag))
