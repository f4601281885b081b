"""What of the host can be seen, and touched by its name?"""

from __future__ import annotations

from collections.abc import Sequence

from lab.isolation.base import (
    BOOT_ID,
    Answer,
    Context,
    Found,
    Group,
    Mechanism,
    Probe,
    Reply,
    Severity,
    expect,
    expectations,
    on_whose_kernel,
)

NAMESPACES_OF_A_CONTAINER = ("cgroup", "ipc", "pid", "uts")
"""Those that lab gives to containers alone; a mount and a network namespace every instance has."""

IOVEC_OF_ONE_BYTE = "x:00000000000000000100000000000000"
"""struct iovec {NULL, 1}: process_vm_readv(2) fails with EFAULT, but only after the permission check."""


class AboutProcesses(Probe):
    """Hidden by a namespace."""

    group = Group.VISIBILITY
    mechanism = Mechanism.NAMESPACE


class HostProcesses(AboutProcesses):
    """Looks for a process that lab started on the host, by a word in its command line."""

    id = "host-processes"
    question = "Does it see the host's processes?"
    pages = ("pid_namespaces(7)", "proc(5)")
    severity = Severity.LEAK
    expected = expectations(
        bare=expect(Answer.YES, because="a root directory hides files, not processes"),
        container=expect(Answer.NO, because="/proc shows the container's pid namespace alone"),
        own_kernel=expect(Answer.NO, because="the guest's kernel knows nothing of the host's processes"),
    )

    def lines(self, context: Context) -> Sequence[str]:
        return (f"processes {context.victim_token}",)

    def judge(self, seen: Sequence[Reply], host: Sequence[Reply], context: Context) -> Found:
        visible = bool(seen[0]["found"])
        among = "among them" if visible else "not among them"
        return Found(
            answer=Answer.YES if visible else Answer.NO,
            evidence=f"{seen[0]['count']} processes in /proc, the host's {among}",
            value=float(seen[0]["count"]),
        )


class KillHostProcess(AboutProcesses):
    """Signal 0 asks for the permission to signal, and sends nothing (kill(2))."""

    id = "kill-host-process"
    question = "Could it kill a process of the host?"
    pages = ("kill(2)", "pid_namespaces(7)")
    expected = expectations(
        bare=expect(Answer.YES, because="root may signal every process it can name"),
        container=expect(Answer.NO, because="the host's process has no id in the container's pid namespace"),
        own_kernel=expect(Answer.NO, because="the process belongs to another kernel"),
    )

    def lines(self, context: Context) -> Sequence[str]:
        return (f"call kill {context.victim_pid} 0", f"read /proc/{context.victim_pid}/cmdline")

    def judge(self, seen: Sequence[Reply], host: Sequence[Reply], context: Context) -> Found:
        # Inside a pid namespace the same number may belong to somebody else.
        same = context.victim_token in seen[1]["text"]
        outcome = seen[0]["name"] or ("allowed" if same else "another process")
        return Found(
            answer=Answer.YES if outcome == "allowed" else Answer.NO,
            evidence=f"kill(pid of the host's process, 0): {outcome}",
        )


class ReadHostProcess(AboutProcesses):
    """The permission that ptrace(2) needs, asked without stopping anybody."""

    id = "trace-host-process"
    question = "Could it read the memory of a process of the host?"
    pages = ("process_vm_readv(2)", "ptrace(2)")
    expected = expectations(
        bare=expect(Answer.YES, because="root may trace every process it can name"),
        container=expect(Answer.NO, because="the host's process has no id in the container's pid namespace"),
        own_kernel=expect(Answer.NO, because="the process belongs to another kernel"),
    )

    def lines(self, context: Context) -> Sequence[str]:
        pid = context.victim_pid
        return (
            f"call process_vm_readv {pid} {IOVEC_OF_ONE_BYTE} 1 {IOVEC_OF_ONE_BYTE} 1 0",
            f"read /proc/{pid}/cmdline",
        )

    def judge(self, seen: Sequence[Reply], host: Sequence[Reply], context: Context) -> Found:
        reached = seen[0]["name"] == "EFAULT" and context.victim_token in seen[1]["text"]
        return Found(
            answer=Answer.YES if reached else Answer.NO,
            evidence=f"process_vm_readv of one byte at address 0: {seen[0]['name']}",
        )


class Namespaces(AboutProcesses):
    """Compares the inodes of namespaces(7). Those a kernel makes at boot have fixed numbers, so that equal ones
    mean nothing when the kernels differ.
    """

    id = "namespaces"
    question = "Does it live in namespaces of the host's?"
    pages = ("namespaces(7)",)
    severity = Severity.INFORMATION
    expected = expectations(
        bare=expect(Answer.HOST, because="it is a process of the host, with a mount and network namespace"),
        container=expect(Answer.OWN, because="the runtime made a new one of each"),
        own_kernel=expect(Answer.OWN, because="namespaces belong to a kernel, and it has its own"),
        docker=expect(
            Answer.HOST,
            Answer.OWN,
            because="on cgroup v1 it shares the host's cgroup namespace, on v2 it has its own",
        ),
    )

    def lines(self, context: Context) -> Sequence[str]:
        return ("namespaces", BOOT_ID)

    def judge(self, seen: Sequence[Reply], host: Sequence[Reply], context: Context) -> Found:
        shared = [name for name in sorted(seen[0]) if seen[0][name] == host[0].get(name)]
        inside_host = set(shared) & set(NAMESPACES_OF_A_CONTAINER)
        if inside_host and on_whose_kernel(seen[1], host[1]) is Answer.GUEST:
            return Found(answer=Answer.OWN, evidence="another kernel's namespaces")
        return Found(
            answer=Answer.HOST if inside_host else Answer.OWN,
            evidence=f"shared with the host: {', '.join(shared) or 'none'}",
            value=float(len(shared)),
        )
