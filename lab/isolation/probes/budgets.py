"""Whose is what can run out? Read, never used up: on a shared kernel it would be the host that suffers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from lab.host.survey import facts
from lab.isolation.base import (
    BOOT_ID,
    Answer,
    Context,
    Found,
    Group,
    Inconclusive,
    Mechanism,
    Place,
    Probe,
    Reply,
    Severity,
    expect,
    expectations,
    on_whose_kernel,
)

MOST_FILES_TRIED = 65_536
FEW_FILES = 16


class _Budget(Probe):
    """A file that shows how much there is, and the namespace that it is counted in: the host's where both the kernel
    and the namespace are the host's.
    """

    group = Group.LIMITS
    mechanism = Mechanism.NONE
    severity = Severity.INFORMATION
    path: ClassVar[str]
    counted_in: ClassVar[str] = ""  # a name of namespaces(7); empty: by the kernel, for all
    expected = expectations(
        bare=expect(Answer.HOST, because="there is one kernel, and it counts for all"),
        container=expect(
            Answer.HOST, because="no namespace and no default limit divides it: one tenant can use it up"
        ),
        own_kernel=expect(Answer.OWN, because="the guest's kernel has one of its own"),
        user_space=expect(Answer.NO, Answer.OWN, because="its kernel has its own, and shows few of such files"),
    )

    def lines(self, context: Context) -> Sequence[str]:
        return (f"read {self.path}", "namespaces", BOOT_ID)

    def judge(self, seen: Sequence[Reply], host: Sequence[Reply], context: Context) -> Found:
        if seen[0]["errno"]:
            return Found(answer=Answer.NO, evidence=f"{self.path}: {seen[0]['name']}")
        evidence = f"{self.path}: {' '.join(str(seen[0]['text']).split())[:60]}"
        if on_whose_kernel(seen[2], host[2]) is Answer.GUEST:
            return Found(answer=Answer.OWN, evidence=f"{evidence}, of another kernel")
        shared = not self.counted_in or seen[1].get(self.counted_in) == host[1].get(self.counted_in)
        whose = f", counted in {'the host’s' if shared else 'its own'} {self.counted_in} namespace"
        return Found(
            answer=Answer.HOST if shared else Answer.OWN, evidence=evidence + (whose if self.counted_in else "")
        )


class InotifyInstances(_Budget):
    """Makes one instance with inotify_init1(2), in a process that ends at once. The kernel counts it for its user in
    its user namespace, and, one namespace up, for the user who made that: in the end for the host's root, whichever
    namespace root puts around a container.
    """

    id = "inotify-instances"
    question = "Can it use up the host root's inotify instances?"
    path = "/proc/sys/fs/inotify/max_user_instances"
    pages = ("inotify(7)", "user_namespaces(7)")
    expected = expectations(
        bare=expect(Answer.HOST, because="its root is the host's, who has 128 of them by default"),
        container=expect(Answer.HOST, because="its root is the host's, who has 128 of them by default"),
        user_namespace=expect(
            Answer.HOST,
            because="what its root takes is counted for who made the namespace too: the host's root",
        ),
        own_kernel=expect(Answer.OWN, because="the guest's kernel counts its own users' alone"),
    )
    surprise = "“no” from a container: somebody else than root made its user namespace, or set a limit there."

    def lines(self, context: Context) -> Sequence[str]:
        return ("call inotify_init1 0", f"read {self.path}", BOOT_ID)

    def judge(self, seen: Sequence[Reply], host: Sequence[Reply], context: Context) -> Found:
        if seen[0]["errno"]:
            return Found(answer=Answer.NO, evidence=f"inotify_init1: {seen[0]['name']}")
        guest = on_whose_kernel(seen[2], host[2]) is Answer.GUEST
        most = str(seen[1]["text"]).strip()
        whose = "another kernel's root" if guest else "the host's root"
        evidence = f"inotify_init1: succeeded, one of {most} of {whose}"
        return Found(answer=Answer.OWN if guest else Answer.HOST, evidence=evidence)


class IpcObjects(_Budget):
    """kernel.sem and its like are settings of an ipc namespace."""

    id = "ipc-objects"
    question = "Can it use up the host's semaphores?"
    mechanism = Mechanism.NAMESPACE
    path = "/proc/sys/kernel/sem"
    counted_in = "ipc"
    pages = ("ipc_namespaces(7)", "proc_sys_kernel(5)")
    expected = expectations(
        bare=expect(Answer.HOST, because="it is in the host's ipc namespace"),
        container=expect(Answer.OWN, because="each ipc namespace has limits of its own"),
        own_kernel=expect(Answer.OWN, because="the guest's kernel has some of its own"),
    )


class ThreadTable(_Budget):
    """kernel.threads-max, for all threads of the kernel; only a pids cgroup divides it."""

    id = "thread-table"
    question = "Does it share the host's table of threads?"
    path = "/proc/sys/kernel/threads-max"
    pages = ("proc_sys_kernel(5)",)


class FileTable(_Budget):
    """fs.file-nr: open files of the whole kernel, and the most there may be."""

    id = "file-table"
    question = "Does it share the host's table of open files?"
    path = "/proc/sys/fs/file-nr"
    pages = ("proc_sys_fs(5)",)


class DirectoryEntries(_Budget):
    """fs.dentry-state: names that the kernel keeps in memory; one tenant's look-ups push out those of the others."""

    id = "directory-entries"
    question = "Does it share the host's cache of file names?"
    path = "/proc/sys/fs/dentry-state"
    pages = ("proc_sys_fs(5)",)


class Terminals(_Budget):
    """kernel.pty.max, for all pseudo-terminals of the kernel."""

    id = "pseudo-terminals"
    question = "Can it use up the host's pseudo-terminals?"
    path = "/proc/sys/kernel/pty/max"
    pages = ("pty(7)", "proc_sys_kernel(5)")


class KeyQuota(_Budget):
    """kernel.keys.root_maxkeys is for the host's root alone. Keys are counted by user, and root of a user namespace
    is another user, who has kernel.keys.maxkeys.
    """

    id = "key-quota"
    question = "Does it share the host root's quota of keys?"
    path = "/proc/sys/kernel/keys/root_maxkeys"
    counted_in = "user"
    pages = ("keyrings(7)",)
    expected = expectations(
        bare=expect(Answer.HOST, because="keys are counted by user, and its root is the host's"),
        container=expect(Answer.HOST, because="keys are counted by user, and its root is the host's"),
        user_namespace=expect(Answer.OWN, because="keys are counted by user, and its root is another one"),
        own_kernel=expect(Answer.OWN, because="the guest's kernel counts its own"),
        user_space=expect(Answer.NO, because="its kernel has no keys"),
    )


class DiskSpace(Probe):
    """How large the file system below / is, beside the one on which lab keeps instances' files and the host's other
    disks, of which an engine may have one of its own. Only sizes are compared: the same, on the host's kernel, is
    the same disk.
    """

    id = "disk-space"
    question = "Can it fill the host's disk?"
    group = Group.LIMITS
    mechanism = Mechanism.NONE
    pages = ("statfs(2)",)
    expected = expectations(
        bare=expect(Answer.HOST, because="what it writes lands on the host's disk"),
        container=expect(Answer.HOST, because="its writable layer is a folder on the host's disk, without a quota"),
        own_kernel=expect(Answer.OWN, because="its disk is a file or RAM of a fixed size"),
    )

    def lines(self, context: Context) -> Sequence[str]:
        return ("space /", BOOT_ID)

    def control_lines(self, context: Context) -> Sequence[str]:
        others = facts.disks(Path("/proc/self/mountinfo").read_text())
        return (f"space {context.home}", *(f"space {point}" for point in others), BOOT_ID)

    def judge(self, seen: Sequence[Reply], host: Sequence[Reply], context: Context) -> Found:
        mine, *disks = (int(each["bytes"]) for each in (seen[0], *host[:-1]))
        if seen[0]["errno"] or not disks[0]:
            raise Inconclusive(f"statfs failed: {seen[0]['name'] or host[0]['name'] or 'no size'}")
        theirs = min(disks, key=lambda size: abs(size - mine))
        evidence = f"/ has {mine >> 20} MiB, {int(seen[0]['free']) >> 20} free; the host's disk {theirs >> 20} MiB"
        # A file system may show more for reserves that are given back: sizes move by little.
        same = abs(mine - theirs) <= theirs // 1000 and on_whose_kernel(seen[-1], host[-1]) is Answer.YES
        return Found(answer=Answer.HOST if same else Answer.OWN, evidence=evidence, value=float(mine))


class SharedMemorySpace(Probe):
    """Which file system /dev/shm is, by its device number: what is written there is memory."""

    id = "shared-memory-space"
    question = "Can it fill the host's /dev/shm?"
    group = Group.LIMITS
    mechanism = Mechanism.NAMESPACE
    pages = ("shm_overview(7)", "tmpfs(5)", "mount_namespaces(7)")
    expected = expectations(
        bare=expect(Answer.HOST, because="it has the host's /dev and what is mounted there"),
        container=expect(Answer.OWN, because="the runtime mounts a tmpfs of 64 MiB there"),
        own_kernel=expect(Answer.OWN, Answer.NO, because="the guest mounts its own, or none"),
    )

    def lines(self, context: Context) -> Sequence[str]:
        return ("stat /dev/shm", BOOT_ID)

    def judge(self, seen: Sequence[Reply], host: Sequence[Reply], context: Context) -> Found:
        if seen[0]["errno"]:
            return Found(answer=Answer.NO, evidence=f"/dev/shm: {seen[0]['name']}")
        evidence = f"/dev/shm is device {seen[0]['device']}, on the host {host[0]['device']}"
        same = seen[0]["device"] == host[0]["device"] and on_whose_kernel(seen[1], host[1]) is Answer.YES
        return Found(answer=Answer.HOST if same else Answer.OWN, evidence=evidence)


class OpenFiles(Probe):
    """dup(2), up to 65,536 descriptors in a process that ends at once. The control makes a few."""

    id = "open-files-limit"
    question = "Is there a limit of open files for a process?"
    group = Group.LIMITS
    mechanism = Mechanism.RESOURCE_LIMIT
    negative = Place.CLOSED
    severity = Severity.INFORMATION
    pages = ("getrlimit(2)", "dup(2)")
    expected = expectations(
        bare=expect(
            Answer.EFFECTIVE, Answer.NO_LIMIT, because="lab sets Docker's million, or less where the host has less"
        ),
        container=expect(
            Answer.EFFECTIVE, Answer.NO_LIMIT, because="Docker's is a million, which is more than is tried here"
        ),
        own_kernel=expect(Answer.EFFECTIVE, Answer.NO_LIMIT, because="the guest's kernel sets it"),
    )

    def lines(self, context: Context) -> Sequence[str]:
        return (f"files {MOST_FILES_TRIED}",)

    def control_lines(self, context: Context) -> Sequence[str]:
        return (f"files {FEW_FILES}",)

    def judge(self, seen: Sequence[Reply], host: Sequence[Reply], context: Context) -> Found:
        made, error = int(seen[0]["made"]), str(seen[0]["name"])
        evidence = f"{made} descriptors, then {error or 'enough'}"
        if error == "EMFILE":
            return Found(answer=Answer.EFFECTIVE, evidence=evidence, value=float(made))
        if error:
            raise Inconclusive(f"dup failed otherwise: {evidence}")
        return Found(answer=Answer.NO_LIMIT, evidence=evidence, value=float(made))
