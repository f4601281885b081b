"""What each step of a start does, a plain sentence each, with the manual page to read: ``lab run --explain``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from lab.backends.bubble.sandbox import Made as Bubble
from lab.backends.engine.instance import Call
from lab.backends.libkrun.place import Start as Krun
from lab.backends.libpod.container import Call as Run
from lab.backends.support.programs.ocicontainer import Made
from lab.backends.systemd.container import Made as Nspawn
from lab.backends.usermode.place import Boot as Uml
from lab.hypervisor.boot import Boot
from lab.runtime.plan import Before, Instead, Step

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
        what="A veth pair into a namespace of its own, or a tap for a guest, on lab's bridge.",
        calls="unshare, setns, rtnetlink",
        page="veth(4)",
    ),
    Before.CGROUP: Explanation(
        what="What counts and limits memory, CPU and processes, limited while still empty.",
        calls="mkdir, write",
        page="cgroups(7)",
    ),
    Before.DEVICES: Explanation(
        what="A filter on the group says which device nodes may be opened, whoever makes them.",
        calls="bpf, or write",
        page="bpf(2)",
    ),
    Before.WRITES: Explanation(
        what="An empty folder for what the container writes, one with a point for each mount.",
        calls="mkdir",
        page="mkdir(2)",
    ),
    Before.PLAN: Explanation(
        what="The OCI configuration becomes numbers and strings; the filter is compiled.",
        calls="",
        page="config.md",
    ),
}

CONTAINER: dict[str, Explanation] = {
    Step.CLONE: Explanation(
        what="A child, and with it namespaces: its own views of mounts, processes, names.",
        calls="clone3, or clone",
        page="clone(2)",
    ),
    Step.MAP_IDS: Explanation(
        what="The parent says which users of the host stand behind those inside.",
        calls="write to uid_map",
        page="user_namespaces(7)",
    ),
    Step.PLACE: Explanation(
        what="It enters its groups first of all: memory is charged to who touches it first.",
        calls="write to tasks",
        page="cgroups(7)",
    ),
    Step.JOIN: Explanation(
        what="It enters the namespaces that others have prepared.",
        calls="setns, unshare",
        page="setns(2)",
        reason="CVE-2016-9962: who is inside already must not trace it; it is not dumpable now",
    ),
    Step.ROOT: Explanation(
        what="The root, mounted where nothing of it shows on the host from here on.",
        calls="mount",
        page="mount(2)",
    ),
    Step.MOUNTS: Explanation(
        what="/proc, /dev, /sys and the rest, opened with the new root as the end of the world.",
        calls="fsopen, openat2, move_mount, mknod",
        page="openat2(2)",
        reason="CVE-2019-19921: the image had a link in place of /proc",
    ),
    Step.HOOKS: Explanation(
        what="Programs of the caller's run, in the host's surroundings and in the container's.",
        calls="posix_spawn",
        page="config.md",
    ),
    Step.CONSOLE: Explanation(
        what="A terminal is made in the container's own devpts; the caller gets its other side.",
        calls="openat2, TIOCGPTPEER",
        page="pts(4)",
    ),
    Step.MASKS: Explanation(
        what="What tells of the host is covered; what could change the kernel is read-only.",
        calls="open_tree, mount_setattr, move_mount",
        page="mount_setattr(2)",
    ),
    Step.ENTER: Explanation(
        what="The new root takes the place of the old one, which is unmounted.",
        calls="pivot_root, umount2",
        page="pivot_root(2)",
    ),
    Step.HOSTNAME: Explanation(
        what="Its own name, in its own UTS namespace.", calls="sethostname", page="sethostname(2)"
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
        what="Root's power comes in parts: most go for good. Then user and groups change.",
        calls="prctl, setresuid, capset",
        page="capabilities(7)",
    ),
    Step.NO_NEW_PRIVILEGES: Explanation(
        what="No set-uid program gives any of it back.",
        calls="prctl(PR_SET_NO_NEW_PRIVS)",
        page="prctl(2)",
    ),
    Step.START_HOOKS: Explanation(
        what="Programs of the image that run first; they may no more than the application.",
        calls="clone, seccomp, execve",
        page="config.md",
    ),
    Step.SECCOMP: Explanation(
        what="A filter decides on every system call. Last: it forbids what was done before.",
        calls="seccomp",
        page="seccomp(2)",
    ),
    Step.EXECVE: Explanation(
        what="The program takes the place of lab's code, and the channel closes by itself.",
        calls="execve",
        page="execve(2)",
        reason="CVE-2019-5736: the program is lab's own, from a read-only mount",
    ),
}

RESTORED: dict[str, Explanation] = {
    Instead.CRIU: Explanation(
        what="criu makes mounts and processes again as they were saved, and lets them go on.",
        calls="clone3, mount, ptrace, …",
        page="criu(8)",
    ),
}

INSIDE_IT: dict[str, Explanation] = {
    HELPER: Explanation(
        what="lab's helper, now process 1, executes it in a child; a pipe closes when it has.",
        calls="fork, execve",
        page="execve(2)",
    ),
}

MACHINE: dict[str, Explanation] = {
    Boot.PARTS: Explanation(
        what="Layers for writes over read-only disks; an archive that says what to run.",
        calls="sendfile, write",
        page="cpio(5)",
    ),
    Boot.CHANNELS: Explanation(
        what="Sockets for all that the guest will say: QEMU connects before it runs anything.",
        calls="bind, listen",
        page="unix(7)",
    ),
    Boot.DOMAIN: Explanation(
        what="The machine as libvirt's XML; and as a list, what of this host its QEMU may see.",
        calls="",
        page="formatdomain.html",
    ),
    Boot.LAUNCH: Explanation(
        what="libvirt starts QEMU: in its group, in a jail, as nobody's user it runs the vCPUs.",
        calls="fork, pivot_root, execve",
        page="qemu(1)",
    ),
    Boot.FIRMWARE: Explanation(
        what="The firmware looks at the devices and jumps to the kernel, in memory already.",
        calls="seen: first byte on serial",
        page="boot(7)",
    ),
    Boot.KERNEL: Explanation(
        what="A second Linux starts: memory, interrupts, buses. It executes /init.",
        calls="seen: init's line on serial",
        page="bootparam(7)",
    ),
    Boot.USER_SPACE: Explanation(
        what="The guest's user space makes ready what the application needs, and executes it.",
        calls="seen: a mark on its port",
        page="execve(2)",
    ),
    Boot.WAKE: Explanation(
        what="The saved guest hears who it is from now on, and draws from a seed of its own.",
        calls="seen: a mark on its port",
        page="random(4)",
    ),
}

REFERENCE: dict[str, Explanation] = {
    Made.BUNDLE: Explanation(
        what="The configuration as config.json, and folders for what the container writes.",
        calls="mkdir, write",
        page="config.md",
    ),
    Made.CREATE: Explanation(
        what="The overlay is mounted; the rest it does out of lab's sight (strace -f shows it).",
        calls="unshare, mount, execve",
        page="runc-create(8)",
    ),
    Made.START: Explanation(
        what="The waiting container goes on; lab's helper, process 1, says when it has executed.",
        calls="execve",
        page="runc-start(8)",
    ),
}

DOCKER: dict[str, Explanation] = {
    Call.CREATE: Explanation(
        what="Docker writes down what is wanted and makes a layer for writes; nothing runs yet.",
        calls="POST /containers/create",
        page="docker-create(1)",
    ),
    Call.ATTACH: Explanation(
        what="A stream over which the Engine will send what the application writes.",
        calls="POST /containers/ID/attach",
        page="docker-attach(1)",
    ),
    Call.START: Explanation(
        what="Overlay, network, containerd, a shim, runc, execve: it answers when all is done.",
        calls="POST /containers/ID/start",
        page="docker-start(1)",
    ),
}

PODMAN: dict[str, Explanation] = {
    Run.RUN: Explanation(
        what="Layer, overlay, conmon, runtime, execve: podman ends when the application runs.",
        calls="execve",
        page="podman-run(1)",
    ),
}

BUBBLE: dict[str, Explanation] = {
    Bubble.NAMESPACES: Explanation(
        what="bwrap, in the instance's group, clones a child into new namespaces, and names it.",
        calls="clone",
        page="bwrap(1)",
    ),
    Bubble.SANDBOX: Explanation(
        what="It mounts, drops capabilities, and executes lab's helper, which tells of execve.",
        calls="mount, pivot_root, capset, execve",
        page="bwrap(1)",
    ),
}

NSPAWN: dict[str, Explanation] = {
    Nspawn.BOUNDARY: Explanation(
        what="nspawn, in the instance's group, makes namespaces, mounts, /dev and two groups.",
        calls="clone, mount, mknod, pivot_root",
        page="systemd-nspawn(1)",
    ),
    Nspawn.APPLICATION: Explanation(
        what="It drops capabilities, installs its filters, and executes lab's helper.",
        calls="capset, seccomp, execve",
        page="systemd-nspawn(1)",
    ),
}

USER_MODE: dict[str, Explanation] = {
    Uml.PARTS: Explanation(
        what="An archive with lab's helper that says what to run; a folder for what is written.",
        calls="write, mkdir",
        page="cpio(5)",
    ),
    Uml.CHANNELS: Explanation(
        what="Sockets, one for each serial line of the guest; the kernel gets their other ends.",
        calls="bind, listen, connect",
        page="unix(7)",
    ),
    Uml.LAUNCH: Explanation(
        what="A container of lab's around a program, the kernel: nobody's user, and no network.",
        calls="clone, pivot_root, execve",
        page="execve(2)",
    ),
    Uml.FIRST_LINE: Explanation(
        what="The program asks what this host's ptrace can do, and says so.",
        calls="seen: first byte on console",
        page="ptrace(2)",
    ),
    Uml.KERNEL: Explanation(
        what="A second Linux starts, without hardware to look for. It executes lab's helper.",
        calls="seen: its line on the console",
        page="bootparam(7)",
    ),
    Uml.USER_SPACE: Explanation(
        what="The helper mounts the image, sets the address, and executes the application.",
        calls="seen: a mark on its line",
        page="execve(2)",
    ),
}

KRUN: dict[str, Explanation] = {
    Krun.PARTS: Explanation(
        what="A folder that the kernel begins with: lab's helper, and what it shall run.",
        calls="write, mkdir",
        page="init(1)",
    ),
    Krun.CHANNELS: Explanation(
        what="Sockets, one for each port of the guest; the monitor gets their other ends.",
        calls="bind, listen, connect",
        page="unix(7)",
    ),
    Krun.LAUNCH: Explanation(
        what="A container of lab's around a program with libkrun: nobody's user, no network.",
        calls="clone, pivot_root, execve",
        page="dlopen(3)",
    ),
}

EXPLANATIONS: Mapping[str, Explanation] = (
    SURROUNDINGS
    | CONTAINER
    | RESTORED
    | INSIDE_IT
    | REFERENCE
    | DOCKER
    | PODMAN
    | MACHINE
    | USER_MODE
    | KRUN
    | BUBBLE
    | NSPAWN
)
"""By the name of the step."""


def number(step: str) -> int | None:
    """A step's number in `lab.runtime.container`; None for what comes before and after those."""
    steps = [str(each) for each in Step]
    return steps.index(step) + 1 if step in steps else None
