"""What does its /proc and /sys tell about the host, and whose names does it live under?"""

from __future__ import annotations

from collections.abc import Sequence

from lab.isolation.base import (
    BOOT_ID,
    EVERY_ID,
    Answer,
    Boundary,
    Context,
    Found,
    Group,
    HostValue,
    Mechanism,
    Place,
    Privilege,
    Probe,
    Readable,
    Reply,
    Severity,
    expect,
    expectations,
    on_whose_kernel,
)
from lab.isolation.probes.kernel import SHARED, SHARED_READ, SHOWN, UNMASKED
from lab.isolation.probes.visibility import AboutProcesses


class AbstractSocket(AboutProcesses):
    """Connects to an abstract socket of a process of the host, which answers with a word. unix(7): such names belong
    to the network namespace and have no permissions.
    """

    id = "abstract-socket"
    question = "Can it reach an abstract socket of the host's?"
    pages = ("unix(7)", "network_namespaces(7)")
    expected = expectations(
        bare=expect(
            Answer.NO, because="the bare process has a network namespace too, so that its client's path is equal"
        ),
        container=expect(Answer.NO, because="abstract names end with the container's network namespace"),
        own_kernel=expect(Answer.NO, because="sockets of the host's kernel have no name in the guest's"),
    )

    def lines(self, context: Context) -> Sequence[str]:
        return (f"greet @{context.victim_token}",)

    def judge(self, seen: Sequence[Reply], host: Sequence[Reply], context: Context) -> Found:
        reached = context.victim_token in seen[0]["text"]
        said = "the host's process answered" if reached else seen[0]["name"] or "somebody else answered"
        return Found(answer=Answer.YES if reached else Answer.NO, evidence=f"connect to its abstract socket: {said}")


class SharedMemory(AboutProcesses):
    """Attaches a System V segment of a process of the host for reading, by its number (shmat(2))."""

    id = "shared-memory"
    question = "Can it attach shared memory of the host's?"
    pages = ("shmat(2)", "ipc_namespaces(7)")
    expected = expectations(
        bare=expect(Answer.YES, because="it is in the host's ipc namespace, and root may attach every segment"),
        container=expect(Answer.NO, because="the number means nothing in the container's ipc namespace"),
        own_kernel=expect(Answer.NO, because="the guest's kernel has segments of its own only"),
    )

    def lines(self, context: Context) -> Sequence[str]:
        return (f"shared-memory {max(context.victim_memory, 0)}",)

    def judge(self, seen: Sequence[Reply], host: Sequence[Reply], context: Context) -> Found:
        reached = context.victim_token in seen[0]["text"]
        said = "holds the host's word" if reached else seen[0]["name"] or "another one"
        return Found(answer=Answer.YES if reached else Answer.NO, evidence=f"shmat of the segment's number: {said}")


class HostRoot(AboutProcesses):
    """The device and inode of /proc/PID/root of a process of the host. stat(2) follows that link to wherever the
    process is rooted: the well-known way out of a chroot.
    """

    id = "root-of-a-host-process"
    question = "Can it reach the host's files through /proc/PID/root?"
    pages = ("proc_pid_root(5)", "chroot(2)", "pivot_root(2)")
    expected = expectations(
        bare=expect(Answer.YES, because="chroot(2) changes one process's root; /proc still leads to the host's"),
        container=expect(Answer.NO, because="its /proc shows no process that is rooted on the host"),
        own_kernel=expect(Answer.NO, because="the guest's processes are rooted in the guest"),
    )

    def lines(self, context: Context) -> Sequence[str]:
        return (f"stat /proc/{context.victim_pid}/root/", BOOT_ID)

    def control_lines(self, context: Context) -> Sequence[str]:
        return ("stat /", BOOT_ID)

    def judge(self, seen: Sequence[Reply], host: Sequence[Reply], context: Context) -> Found:
        mine, theirs = ((reply["device"], reply["inode"]) for reply in (seen[0], host[0]))
        evidence = (
            f"stat /proc/PID/root/: {seen[0]['name'] or f'device {mine[0]}'}, the host's / is device {theirs[0]}"
        )
        same = not seen[0]["errno"] and mine == theirs and on_whose_kernel(seen[1], host[1]) is Answer.YES
        return Found(answer=Answer.YES if same else Answer.NO, evidence=evidence)


class Hostname(Privilege):
    """sethostname(2) with a negative length: EINVAL comes only after CAP_SYS_ADMIN was asked for."""

    id = "set-hostname"
    question = "Can it rename the host?"
    group = Group.VISIBILITY
    of_namespace = "uts"
    line = "call sethostname s:x -1"
    allowed = frozenset({"EINVAL"})
    pages = ("sethostname(2)", "uts_namespaces(7)")
    because = "Docker's 14 capabilities lack CAP_SYS_ADMIN; the name would be its own uts namespace's at most"
    nspawn = expect(Answer.OWN, because="nspawn leaves its root CAP_SYS_ADMIN, and the name is its uts namespace's")


class UserIds(Probe):
    """/proc/self/uid_map: with the identity over all ids its root is the host's root, held back by nothing but the
    capabilities it lacks, once something else gives way.
    """

    id = "user-ids"
    question = "Is its root the host's root?"
    group = Group.VISIBILITY
    mechanism = Mechanism.NAMESPACE
    pages = ("user_namespaces(7)", "proc_pid_uid_map(5)")
    surprise = "“no” from a container: a user namespace is in use, and its root is somebody else on the host."
    expected = expectations(
        bare=expect(Answer.YES, because="there is one user namespace, the host's"),
        container=expect(Answer.YES, because="a default container has no user namespace: its uid 0 is the host's"),
        user_namespace=expect(Answer.NO, because="its uid 0 is an ordinary user of the host"),
        own_kernel=expect(Answer.GUEST, because="its ids belong to the guest's kernel"),
    )

    def lines(self, context: Context) -> Sequence[str]:
        return ("read /proc/self/uid_map", BOOT_ID)

    def judge(self, seen: Sequence[Reply], host: Sequence[Reply], context: Context) -> Found:
        ids = " ".join(str(seen[0]["text"]).split())
        if seen[0]["errno"] or ids != EVERY_ID:
            return Found(answer=Answer.NO, evidence=f"/proc/self/uid_map: {seen[0]['name'] or ids}")
        return Found(answer=on_whose_kernel(seen[1], host[1]), evidence=f"/proc/self/uid_map: {ids}")


class HostMounts(Probe):
    """/proc/self/mountinfo: a source in /dev, the directory of a bind mount, or an overlay's layers are paths of
    whoever made the mount.
    """

    id = "host-paths-in-mounts"
    question = "Do its mounts tell disks and folders of the host?"
    group = Group.VISIBILITY
    mechanism = Mechanism.NONE
    severity = Severity.LEAK
    pages = ("proc_pid_mountinfo(5)",)
    expected = expectations(
        bare=expect(Answer.YES, because="its mounts are the host's"),
        container=expect(Answer.YES, because="the options of its root name the layers' folders on the host"),
        own_kernel=expect(Answer.GUEST, Answer.NO, because="its mounts tell about the guest's disks and folders"),
    )

    def lines(self, context: Context) -> Sequence[str]:
        return ("read /proc/self/mountinfo 16384", BOOT_ID)

    def judge(self, seen: Sequence[Reply], host: Sequence[Reply], context: Context) -> Found:
        telling = [line for line in str(seen[0]["text"]).splitlines() if self.tells(line)]
        if not telling:
            return Found(answer=Answer.NO, evidence=f"/proc/self/mountinfo: {seen[0]['name'] or 'no such path'}")
        return Found(answer=on_whose_kernel(seen[1], host[1]), evidence=f"/proc/self/mountinfo: {telling[0][:160]}")

    @staticmethod
    def tells(line: str) -> bool:
        words = line.split()
        if "-" not in words or len(words) < words.index("-") + 4:
            return False
        kind, source, options = words[words.index("-") + 1 :][:3]
        bound = words[3] != "/" and kind not in ("cgroup", "cgroup2", "nsfs", "proc", "tmpfs", "devtmpfs")
        return bound or source.startswith("/dev/") or "lowerdir=" in options


class CgroupPath(Probe):
    """/proc/self/cgroup: without a cgroup namespace the paths are the host's, and tell who runs it and beside whom.
    The control reads the same of a process of the host's that was put in such a group.
    """

    id = "cgroup-path"
    question = "Does it see where it is among the host's cgroups?"
    group = Group.VISIBILITY
    mechanism = Mechanism.NAMESPACE
    severity = Severity.LEAK
    pages = ("cgroup_namespaces(7)", "proc_pid_cgroup(5)")
    positive = Place.LIMITED
    expected = expectations(
        bare=expect(Answer.HOST, because="it has no cgroup namespace"),
        container=expect(Answer.OWN, because="its cgroup namespace begins where it is: every path is /"),
        own_kernel=expect(Answer.OWN, because="the guest's kernel has cgroups of its own"),
        docker=expect(
            Answer.HOST, Answer.OWN, because="on cgroup v1 Docker makes no cgroup namespace, on v2 it does"
        ),
    )

    def lines(self, context: Context) -> Sequence[str]:
        return ("read /proc/self/cgroup",)

    def judge(self, seen: Sequence[Reply], host: Sequence[Reply], context: Context) -> Found:
        paths = [line.split(":", 2)[-1] for line in str(seen[0]["text"]).splitlines()]
        told = next((path for path in paths if context.group and context.group in path), "")
        shown = told or seen[0]["name"] or " ".join(sorted(set(paths)))[:100]
        return Found(answer=Answer.HOST if told else Answer.OWN, evidence=f"/proc/self/cgroup: {shown}")


class DiskStatistics(HostValue):
    """The devices in /proc/diskstats; beside each stands how much has been read and written, by whomever."""

    id = "disk-statistics"
    question = "Does it see the traffic of the host's disks?"
    group = Group.VISIBILITY
    mechanism = Mechanism.NONE
    path = "/proc/diskstats"
    most_bytes = 32768
    pages = ("proc_diskstats(5)",)
    expected = expectations(
        bare=SHARED[Boundary.BARE],
        container=SHARED[Boundary.CONTAINER],
        own_kernel=expect(
            Answer.OWN, Answer.NO, because="the guest's kernel counts for its own disks, if it has any"
        ),
    )

    def essence(self, text: str) -> str:
        return " ".join(sorted(":".join(line.split()[:3]) for line in str(text).splitlines() if line))


class Interrupts(Readable):
    """/proc/interrupts: its counters tell keystrokes, packets and disk accesses of everybody."""

    id = "interrupts"
    question = "Can it watch the host's interrupts?"
    group = Group.VISIBILITY
    path = "/proc/interrupts"
    pages = ("proc_interrupts(5)",)
    expected = expectations(
        bare=SHARED_READ[0],
        container=expect(Answer.NO, because="/proc/interrupts is masked, as Docker does since 2025"),
        own_kernel=SHARED_READ[1],
        docker=expect(Answer.YES, Answer.NO, because="Docker masks it since 2025 only"),
        bubblewrap=UNMASKED,
        nspawn=expect(Answer.YES, because="nspawn does not mask it, and its root owns the file"),
    )


class KeyList(Readable):
    """/proc/keys lists the keys that the reader may view; keyrings have no namespace of their own."""

    id = "key-list"
    question = "Does it see keys of the host's root?"
    group = Group.VISIBILITY
    path = "/proc/keys"
    pages = ("keyrings(7)", "proc_keys(5)")
    expected = expectations(
        bare=SHARED_READ[0],
        container=expect(Answer.NO, because="/proc/keys is masked"),
        own_kernel=SHARED_READ[1],
        bubblewrap=UNMASKED,
        nspawn=SHOWN,
    )
