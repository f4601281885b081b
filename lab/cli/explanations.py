"""What each step of a start does, a plain sentence each, with the manual page to read: ``lab run --explain``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from lab.backends.reference import Made
from lab.hypervisor.boot import Boot
from lab.runtime.plan import Before, Step

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """``page`` is where the step's main system call or mechanism is described; ``reason`` an accident it prevents."""

    what: str
    calls: str
    page: str
    reason: str = ""


HELPER = "start the application"
"""What lab's helper does between the step execve and the phase EXECUTED."""

SURROUNDINGS: dict[str, Explanation] = {
    Before.NETWORK: Explanation(
        what="A namespace with one end of a veth pair, or a tap for a guest, on the bridge of lab's own network.",
        calls="unshare, setns, rtnetlink",
        page="veth(4)",
    ),
    Before.CGROUP: Explanation(
        what="Folders that count and limit memory, CPU and processes, made and limited while they are empty.",
        calls="mkdir, write",
        page="cgroups(7)",
    ),
    Before.DEVICES: Explanation(
        what="A filter on the group says which device nodes may be opened, whoever makes them.",
        calls="bpf(BPF_PROG_ATTACH)",
        page="bpf(2)",
    ),
    Before.WRITES: Explanation(
        what="An empty folder takes what the container writes; another has a mount point for each mount.",
        calls="mkdir",
        page="mkdir(2)",
    ),
    Before.PLAN: Explanation(
        what="The OCI configuration becomes numbers and strings; libseccomp compiles the filter, once.",
        calls="",
        page="seccomp_init(3)",
    ),
}

CONTAINER: dict[str, Explanation] = {
    Step.CLONE: Explanation(
        what="A child is made, and with it its namespaces: views of mounts, processes, names of its own.",
        calls="clone3, or clone",
        page="clone(2)",
    ),
    Step.MAP_IDS: Explanation(
        what="The parent says which users of the host stand behind those inside.",
        calls="write to uid_map",
        page="user_namespaces(7)",
    ),
    Step.PLACE: Explanation(
        what="The child enters its groups before it touches memory: a page is charged to who touches it first.",
        calls="write to tasks",
        page="cgroups(7)",
    ),
    Step.JOIN: Explanation(
        what="It enters the namespaces that others have prepared.",
        calls="setns, unshare",
        page="setns(2)",
        reason="CVE-2016-9962: who is inside already must not trace it: it is not dumpable any more",
    ),
    Step.ROOT: Explanation(
        what="Mounts become private, so that none shows on the host; then its root is mounted.",
        calls="mount",
        page="mount(2)",
    ),
    Step.MOUNTS: Explanation(
        what="/proc, /dev, /sys and the rest, each opened with the new root as the end of the world.",
        calls="openat2, mount, mknod",
        page="openat2(2)",
        reason="CVE-2019-19921: the image had a link in place of /proc",
    ),
    "run hooks": Explanation(
        what="Programs of the configuration's: the parent's in its surroundings, the child's in its namespaces.",
        calls="fork, execve",
        page="config.md",
    ),
    "open the terminal": Explanation(
        what="A pseudo-terminal in its own devpts becomes its standard input, output and error.",
        calls="open of ptmx, TIOCSCTTY",
        page="pty(7)",
    ),
    Step.MASKS: Explanation(
        what="What /proc and /sys tell of the host is covered; what could change the kernel is read-only.",
        calls="mount with MS_BIND",
        page="mount(2)",
    ),
    Step.ENTER: Explanation(
        what="The new root takes the place of the old one, which is unmounted.",
        calls="pivot_root, umount2, or chroot",
        page="pivot_root(2)",
    ),
    Step.HOSTNAME: Explanation(
        what="Its own name, in its own UTS namespace.", calls="sethostname", page="sethostname(2)"
    ),
    "run startContainer hooks": Explanation(
        what="Programs of the image's that the configuration wants before the application.",
        calls="fork, execve",
        page="config.md",
    ),
    Step.LIMITS: Explanation(
        what="Limits of the process itself: open files and the like.", calls="setrlimit", page="getrlimit(2)"
    ),
    Step.DESCRIPTORS: Explanation(
        what="Everything inherited is closed but standard input, output, error and two of lab's.",
        calls="dup2, close_range",
        page="close_range(2)",
        reason="CVE-2024-21626: an open folder of the host was a way out",
    ),
    Step.DIRECTORY: Explanation(
        what="The working directory is entered, and must lie below the root.", calls="chdir, getcwd", page="chdir(2)"
    ),
    Step.CAPABILITIES: Explanation(
        what="Root's power comes in parts: most are given up for good; then user and groups change.",
        calls="prctl, setresuid, capset",
        page="capabilities(7)",
    ),
    Step.NO_NEW_PRIVILEGES: Explanation(
        what="No set-uid program gives any of it back.",
        calls="prctl(PR_SET_NO_NEW_PRIVS)",
        page="prctl(2)",
    ),
    Step.SECCOMP: Explanation(
        what="A filter decides on every system call from now on; last, as it forbids what was done before.",
        calls="seccomp",
        page="seccomp(2)",
    ),
    Step.EXECVE: Explanation(
        what="lab's code ends here: the program takes its place. The parent sees the channel close by itself.",
        calls="execve",
        page="execve(2)",
        reason="CVE-2019-5736: the program is lab's own, from a read-only mount",
    ),
}

INSIDE_IT: dict[str, Explanation] = {
    HELPER: Explanation(
        what="lab's helper, now process 1, forks and executes the application; a pipe closes when it has.",
        calls="fork, execve",
        page="execve(2)",
    ),
}

MACHINE: dict[str, Explanation] = {
    Boot.PARTS: Explanation(
        what="Layers for writes over read-only disks, and an archive that tells the guest what to run.",
        calls="copy_file_range, sendfile, write",
        page="cpio(5)",
    ),
    Boot.CHANNELS: Explanation(
        what="lab listens on sockets for what the guest will say; QEMU connects before its first instruction.",
        calls="bind, listen",
        page="unix(7)",
    ),
    Boot.DOMAIN: Explanation(
        what="The machine as libvirt's XML: processor, memory, disks, card, ports.",
        calls="",
        page="formatdomain.html",
    ),
    Boot.LAUNCH: Explanation(
        what="libvirt starts QEMU in its group and network namespace; returns when the virtual CPUs run.",
        calls="setns, fork, execve",
        page="qemu(1)",
    ),
    Boot.FIRMWARE: Explanation(
        what="The firmware looks at the devices and jumps to the kernel that QEMU has put into memory.",
        calls="seen: the first byte on the serial port",
        page="boot(7)",
    ),
    Boot.KERNEL: Explanation(
        what="A second Linux starts: memory, interrupts, buses; it unpacks the archive and executes /init.",
        calls="seen: init's line on the serial port",
        page="bootparam(7)",
    ),
    Boot.USER_SPACE: Explanation(
        what="The guest's user space makes ready what the application needs, and executes it.",
        calls="seen: a mark on a virtio port",
        page="execve(2)",
    ),
}

REFERENCE: dict[str, Explanation] = {
    Made.BUNDLE: Explanation(
        what="The configuration as config.json, and folders for what the container writes: an OCI bundle.",
        calls="mkdir, write",
        page="config.md",
    ),
    Made.CREATE: Explanation(
        what="The overlay is mounted where it alone sees it; what it does within is out of lab's sight (strace -f).",
        calls="unshare, mount, execve",
        page="runc-create(8)",
    ),
    Made.START: Explanation(
        what="The container that waits goes on; lab's helper, its first process, says when execve has happened.",
        calls="execve",
        page="runc-start(8)",
    ),
}

EXPLANATIONS: Mapping[str, Explanation] = SURROUNDINGS | CONTAINER | INSIDE_IT | REFERENCE | MACHINE
"""By the name of the step."""


def number(step: str) -> int | None:
    """A step's number in `lab.runtime.container`; None for what comes before and after those."""
    steps = [str(each) for each in Step]
    return steps.index(step) + 1 if step in steps else None
