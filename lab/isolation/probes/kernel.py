"""Whose kernel is it?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from lab.isolation.base import (
    BOOT_ID,
    Answer,
    Boundary,
    Context,
    Found,
    Group,
    HostValue,
    Inconclusive,
    Mechanism,
    Probe,
    Readable,
    Reply,
    Severity,
    expect,
    expectations,
    on_whose_kernel,
)

CLOSE_SECONDS = 120.0
"""Asked one after the other, of the same clock, two answers don't lie further apart."""

SHARED = expectations(
    bare=expect(Answer.HOST, because="there is one kernel, and it is the host's"),
    container=expect(Answer.HOST, because="a container shares the host's kernel; no namespace covers this"),
    own_kernel=expect(Answer.OWN, because="the guest booted a kernel of its own"),
)

SHARED_READ = (
    expect(Answer.YES, because="root of the host reads what the host's kernel says"),
    expect(Answer.GUEST, Answer.NO, because="the guest's kernel tells about itself, where it was built to"),
)
"""Of a bare process, and of an instance with its own kernel, where a file needs no more than root."""

UNMASKED = expect(Answer.YES, because="bwrap masks nothing, and its root owns the file")
"""The same of a sandbox of bubblewrap's."""

SHOWN = expect(Answer.YES, Answer.NO, because="nspawn masks it in its younger versions only, and its root owns it")
"""The same of a container of systemd-nspawn's: 252 masks none of these, and 257 masks /proc/keys and
/proc/timer_list.
"""

FIRST_ADDRESS = 1 << 28  # below are offsets; a User-mode Linux lies at 0x60000000, as programs do
LOAD_TOLERANCE = 0.25
THREADS_TOLERANCE = 0.25


class _Shared(HostValue):
    group = Group.KERNEL
    mechanism = Mechanism.NONE
    severity = Severity.INFORMATION
    expected = SHARED


class KernelRelease(_Shared):
    """The whole version string: a release alone may be equal by chance."""

    id = "kernel-release"
    question = "Which kernel answers its system calls?"
    pages = ("uname(2)", "proc_version(5)")
    path = "/proc/version"


class BootId(_Shared):
    """random(4): drawn once per boot of a kernel."""

    id = "boot-id"
    question = "Whose boot id does it see?"
    pages = ("random(4)",)
    path = "/proc/sys/kernel/random/boot_id"
    expected = expectations(
        bare=SHARED[Boundary.BARE],
        container=SHARED[Boundary.CONTAINER],
        own_kernel=SHARED[Boundary.OWN_KERNEL],
        nspawn=expect(Answer.OWN, because="nspawn mounts an id that it drew over the kernel's"),
    )

    def judge(self, seen: Sequence[Reply], host: Sequence[Reply], context: Context) -> Found:
        found = super().judge(seen, host, context)
        return replace(found, mechanism=Mechanism.MASKED) if seen[-1].get("masked") else found


class CommandLine(_Shared):
    """What the boot loader told the kernel, which may hold secrets of the host."""

    id = "kernel-command-line"
    question = "Whose kernel command line does it see?"
    pages = ("proc_cmdline(5)", "bootparam(7)")
    path = "/proc/cmdline"


class MemoryTotal(_Shared):
    """Programs that size themselves by MemTotal ignore their cgroup's limit."""

    id = "memory-total"
    question = "How much memory does it believe to have?"
    pages = ("proc_meminfo(5)", "cgroups(7)")
    path = "/proc/meminfo"

    def essence(self, text: str) -> str:
        return str(text).partition("\n")[0].strip()


class Uptime(_Shared):
    """The first number of /proc/uptime, which a time namespace can shift. Within two minutes it is the same clock:
    the questions are not put at the same moment.
    """

    id = "uptime"
    question = "Whose time since boot does it see?"
    path = "/proc/uptime"
    pages = ("proc_uptime(5)", "time_namespaces(7)")

    def same(self, seen: str, host: str) -> bool:
        if float(host.split()[0]) < 2 * CLOSE_SECONDS:
            raise Inconclusive("the host has booted too recently to tell its clock from another")
        return abs(float(seen.split()[0]) - float(host.split()[0])) < CLOSE_SECONDS

    def value(self, essence: str) -> float | None:
        return float(essence.split()[0])


class Modules(_Shared):
    """The names in /proc/modules; how often each is used changes all the time."""

    id = "kernel-modules"
    question = "Whose kernel modules does it see?"
    path = "/proc/modules"
    pages = ("proc_modules(5)", "lsmod(8)")
    expected = expectations(
        bare=SHARED[Boundary.BARE],
        container=SHARED[Boundary.CONTAINER],
        own_kernel=expect(
            Answer.OWN,
            Answer.NO,
            because="the guest's kernel lists its own, and none if it was built without modules",
        ),
    )

    def essence(self, text: str) -> str:
        return " ".join(sorted(line.split()[0] for line in str(text).splitlines()[:-1] if line))


class LoadAverage(_Shared):
    """The number of all threads in /proc/loadavg counts those of every pid namespace. The average over 15 minutes
    moves so slowly that two looks at one machine agree in it.
    """

    id = "load-average"
    question = "Does it see how busy the host is?"
    path = "/proc/loadavg"
    severity = Severity.LEAK
    pages = ("proc_loadavg(5)",)

    def same(self, seen: str, host: str) -> bool:
        mine, theirs = seen.split(), host.split()
        threads, all_threads = int(mine[3].split("/")[1]), int(theirs[3].split("/")[1])
        return abs(float(mine[2]) - float(theirs[2])) <= LOAD_TOLERANCE and (
            abs(threads - all_threads) <= all_threads * THREADS_TOLERANCE
        )

    def value(self, essence: str) -> float | None:
        return float(essence.split()[2])


class FileSystems(_Shared):
    """The file systems that the kernel knows by now: those of loaded modules are among them."""

    id = "file-systems"
    question = "Whose list of file systems does it see?"
    path = "/proc/filesystems"
    pages = ("proc_filesystems(5)",)


class KernelSymbols(Readable):
    """The addresses in /proc/kallsyms (small ones are offsets). The kernel shows zeros to those
    who lack CAP_SYSLOG (Documentation/admin-guide/sysctl/kernel.rst, kptr_restrict); real ones undo its address
    randomisation.
    """

    id = "kernel-addresses"
    question = "Does it see where the kernel lies in memory?"
    group = Group.KERNEL
    mechanism = Mechanism.CAPABILITY
    path = "/proc/kallsyms"
    most_bytes = 1 << 17  # the offsets come first, and there are thousands
    pages = ("proc_kallsyms(5)", "capabilities(7)")
    because = "without CAP_SYSLOG every address in /proc/kallsyms is zero"
    libkrun = expect(Answer.NO, because="its kernel has no such file")

    def judge(self, seen: Sequence[Reply], host: Sequence[Reply], context: Context) -> Found:
        found = super().judge(seen, host, context)
        real = [line for line in str(seen[0]["text"]).splitlines()[:-1] if int(line.split()[0], 16) >= FIRST_ADDRESS]
        if found.answer is Answer.NO:
            return found
        if not real:
            return Found(answer=Answer.NO, evidence=found.evidence)
        return Found(answer=found.answer, evidence=f"{self.path}: {real[0]}")


class SlabCaches(Readable):
    """One line of /proc/slabinfo, which counts the kernel's objects of all tenants together: how much each makes the
    kernel work shows in it. Only the owner of the file may read it, and that is the host's root.
    """

    id = "slab-caches"
    question = "Can it watch the kernel's allocations for all tenants?"
    group = Group.KERNEL
    mechanism = Mechanism.NONE
    path = "/proc/slabinfo"
    pages = ("slabinfo(5)",)
    expected = expectations(
        bare=SHARED_READ[0],
        container=expect(Answer.YES, because="the file belongs to the host's root, which a container's root is"),
        user_namespace=expect(Answer.NO, because="the file belongs to the host's root, which its root is not"),
        own_kernel=SHARED_READ[1],
    )


class PageCache(Probe):
    """The device and inode of lab's helper program, which every instance runs. Pages of files are cached per inode:
    with the same one, who has read the file shows in how fast it is read again.
    """

    id = "page-cache"
    question = "Does it share cached pages of files with the host?"
    group = Group.KERNEL
    mechanism = Mechanism.NONE
    severity = Severity.LEAK
    pages = ("mincore(2)", "stat(2)")
    expected = expectations(
        bare=expect(Answer.HOST, because="the program is one file of the host's kernel"),
        container=expect(
            Answer.HOST, because="a bind mount, and an image's layers too, are files of the host's kernel"
        ),
        own_kernel=expect(Answer.OWN, because="the guest's kernel caches what it reads by itself"),
    )

    def lines(self, context: Context) -> Sequence[str]:
        return ("stat /proc/self/exe", BOOT_ID)

    def judge(self, seen: Sequence[Reply], host: Sequence[Reply], context: Context) -> Found:
        mine, theirs = ((reply["device"], reply["inode"]) for reply in (seen[0], host[0]))
        evidence = f"the program is device {mine[0]}, inode {mine[1]}; on the host {theirs[0]}, {theirs[1]}"
        if mine != theirs or on_whose_kernel(seen[1], host[1]) is Answer.GUEST:
            return Found(answer=Answer.OWN, evidence=evidence)
        return Found(answer=Answer.HOST, evidence=evidence)
