"""May it write where the kernel takes orders? Opened for writing, and closed without a byte written."""

from __future__ import annotations

from collections.abc import Sequence

from lab.isolation.base import (
    BOOT_ID,
    DROPPED,
    NO_SYS,
    Answer,
    Context,
    Found,
    Group,
    Mechanism,
    Privilege,
    Readable,
    Reply,
    expect,
    expectations,
    on_whose_kernel,
)


class CorePattern(Privilege):
    """The classic way out: the host's kernel executes what stands there when a program dumps core."""

    id = "core-pattern"
    question = "Can it open the host's core_pattern for writing?"
    pages = ("core(5)", "proc_sys_kernel(5)")
    line = "open /proc/sys/kernel/core_pattern write"
    allowed = frozenset({""})
    because = "/proc/sys is mounted read-only"
    bubblewrap = expect(
        Answer.YES, because="bwrap leaves /proc/sys to be written to, and its root owns what is there"
    )
    mechanism = Mechanism.MASKED


class SysRq(Privilege):
    """One byte there crashes or reboots the machine; here it is opened, and none is written."""

    id = "sysrq"
    question = "Can it open /proc/sysrq-trigger for writing?"
    pages = ("proc_sysrq-trigger(5)",)
    line = "open /proc/sysrq-trigger write"
    allowed = frozenset({""})
    because = "/proc/sysrq-trigger is mounted read-only"
    nspawn = expect(Answer.YES, Answer.NO, because="nspawn mounts it read-only in its younger versions only")
    user_space = expect(Answer.GUEST, because="its kernel has a file of that name, for appearances")
    libkrun = expect(Answer.NO, because="its kernel has no such file")
    mechanism = Mechanism.MASKED


class KernelSettings(Privilege):
    """A file of /sys that changes how the kernel manages all memory."""

    id = "kernel-settings"
    question = "Can it change the kernel's settings below /sys?"
    line = "open /sys/kernel/mm/transparent_hugepage/enabled write"
    allowed = frozenset({""})
    mechanism = Mechanism.MASKED
    pages = ("sysfs(5)",)
    because = "/sys is mounted read-only"
    bubblewrap = NO_SYS
    user_mode = expect(Answer.NO, because="its kernel has no huge pages, and no such file")
    surprise = "Many files of /sys act on the whole machine at once."


class CgroupFiles(Privilege):
    """cgroup.procs at the top of a hierarchy of either version. Who writes there leaves its limits, but who is shown
    a group of its own there (cgroup_namespaces(7)) does not.
    """

    id = "cgroup-files"
    question = "Can it move itself out of its cgroup?"
    allowed = frozenset({""})
    mechanism = Mechanism.MASKED
    paths = ("/sys/fs/cgroup/cgroup.procs", "/sys/fs/cgroup/memory/cgroup.procs")
    pages = ("cgroups(7)",)
    expected = expectations(
        bare=expect(Answer.YES, because="it has the host's /sys"),
        container=expect(Answer.NO, because="/sys/fs/cgroup is mounted read-only"),
        own_kernel=expect(
            Answer.GUEST, Answer.NO, because="only the guest's cgroups could be there, if it mounts any"
        ),
        bubblewrap=NO_SYS,
        nspawn=expect(Answer.OWN, Answer.NO, because="the group that it may write to is its own, below its limits"),
    )

    def lines(self, context: Context) -> Sequence[str]:
        groups = (path.rpartition("/")[0] for path in self.paths)
        return (*(f"open {path} write" for path in self.paths), *(f"stat {group}" for group in groups), BOOT_ID)

    def judge(self, seen: Sequence[Reply], host: Sequence[Reply], context: Context) -> Found:
        outcomes = {path: str(reply["name"]) for path, reply in zip(self.paths, seen, strict=False)}
        opened = next((path for path, error in outcomes.items() if not error), None)
        if opened and self._is_own(opened, seen, host):
            evidence = f"open {opened} for writing: succeeded, in a group of its own"
            return Found(answer=Answer.OWN, evidence=evidence, mechanism=Mechanism.NAMESPACE)
        if opened:
            return Found(answer=on_whose_kernel(seen[-1], host[-1]), evidence=f"open {opened} for writing: succeeded")
        told = ", ".join(f"{path}: {error}" for path, error in outcomes.items())
        return Found(answer=Answer.NO, evidence=told)

    def _is_own(self, opened: str, seen: Sequence[Reply], host: Sequence[Reply]) -> bool:
        """Whether that file is of another group than the one of that name on the host."""
        place = len(self.paths) + self.paths.index(opened)
        mine, theirs = ((reply["device"], reply["inode"]) for reply in (seen[place], host[place]))
        return mine != theirs and on_whose_kernel(seen[-1], host[-1]) is Answer.YES


class ReleaseAgent(Privilege):
    """release_agent, which only the root of a v1 hierarchy has: the host's kernel executes what stands there when a
    group gets empty. Known as a way out of privileged containers, and of others where a v1 hierarchy can be mounted:
    on a host that uses v2 alone, too (CVE-2022-0492). Nothing is written, and the mount ends with its namespace.
    """

    id = "release-agent"
    question = "Can it open a cgroup's release_agent for writing?"
    line = "release-agent"
    allowed = frozenset({""})
    mechanism = Mechanism.MASKED
    pages = ("cgroups(7)",)
    expected = expectations(
        bare=expect(Answer.YES, because="it has the host's /sys, and may mount"),
        container=expect(
            Answer.NO,
            because="its cgroup namespace hides the root, /sys/fs/cgroup is read-only, and it may not mount",
        ),
        own_kernel=expect(
            Answer.GUEST, Answer.NO, because="only the guest's cgroups could be there, if its kernel has any"
        ),
        bubblewrap=expect(Answer.NO, because="it has no /sys, and may not mount"),
    )


class KernelCore(Readable):
    """The first bytes of /proc/kcore, the kernel's memory as a core file: its header, and nothing of the memory."""

    id = "kernel-core"
    question = "Can it open the kernel's memory as a file?"
    group = Group.PRIVILEGE
    path = "/proc/kcore"
    most_bytes = 4
    pages = ("proc_kcore(5)",)
    because = "/proc/kcore is masked, and Docker's 14 capabilities lack CAP_SYS_RAWIO"
    bubblewrap = DROPPED
