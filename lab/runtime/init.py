"""How a container starts, the child's half: from its first instruction to execve(2).

The parent's half, with the numbered steps, is `lab.runtime.container`. This runs in a fresh copy of the small
launcher process, inside the new namespaces, as a process that nothing of lab's may leak from. Each step may
only rely on those before it, hence the order:

   mounts need capabilities; the root is entered when all that it takes from outside has been mounted;
   capabilities go before no_new_privs, since dropping them is still a privilege; the seccomp filter comes last,
   because it forbids most of what the steps before it do.

Standard library only; see `lab.runtime.spawner`.
"""

from __future__ import annotations

import binascii
import errno
import fcntl
import os
import resource
import select
import signal
import socket
import struct
from contextlib import suppress

from lab.host import syscalls
from lab.runtime import mounts
from lab.runtime.channel import Channel, ChannelClosed
from lab.runtime.plan import INSIDE, Enter, Plan, ProcessPlan, Progress, Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lab.runtime.plan import Tell

RUNTIME_FAILED = 125  # Docker's exit code for "the container could not be started"
NOT_EXECUTABLE = 126
NOT_FOUND = 127

STATUS_DESCRIPTOR = 3
with open("/proc/sys/kernel/cap_last_cap") as _file:
    LAST_CAPABILITY = int(_file.read())
SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 0x1  # netdevice(7)


def run(plan: Plan, stdio: list[int], channel: Channel, status: int, tasks: list[int]) -> None:
    """Become the container's first process. Never returns."""
    progress = Progress(plan.fail_at, teller(channel) if plan.explain else None)
    try:
        progress.enter(Step.PLACE)
        place(tasks)
        if plan.uid_map:
            channel.expect("IDS_MAPPED")
        die_with_the_launcher(channel, plan.process)
        progress.enter(Step.JOIN)
        join_namespaces(plan)
        progress.enter(Step.ROOT)
        root = mount_root(plan)
        progress.enter(Step.MOUNTS)
        apply(plan.mounts, root, progress)
        set_sysctls(plan, root)
        progress.enter(Step.MASKS)
        apply(plan.masks, root, progress)
        progress.enter(Step.ENTER)
        enter_root(plan, root)
        progress.enter(Step.HOSTNAME)
        name_host(plan)
        channel.send("ISOLATED")
        if plan.hold:
            channel = released(channel)
        become(plan.process, progress, channel, stdio, status)
    except BaseException as error:
        report_and_exit(progress, channel, error)


def released(channel: Channel) -> Channel:
    """Wait for EXEC_NOW, and return the channel that brought it.

    The parent says it, or WAIT with a listening socket: then somebody who connects to that says it, maybe much
    later, and the parent may go.
    """
    message, descriptors = channel.receive()
    if message["message"] == "EXEC_NOW":
        return channel
    if message["message"] != "WAIT":
        raise ValueError(f"expected EXEC_NOW or WAIT, received {message['message']}")
    channel.send("WAITING")
    channel.close()
    while True:
        channel = Channel.accepted(descriptors[0])
        try:
            channel.expect("EXEC_NOW")
        except ChannelClosed:  # it connected and was killed
            channel.close()
        else:
            os.close(descriptors[0])
            return channel


def run_beside(
    process: ProcessPlan,
    namespaces: int,
    flags: int,
    root: int,
    stdio: list[int],
    channel: Channel,
    status: int,
    tasks: list[int],
) -> None:
    """Become one more process in a running container, behind the same boundary. Never returns.

    ``namespaces`` is a pidfd of its first process, ``flags`` what to join of it, ``root`` its root directory.
    """
    progress = Progress()
    try:
        progress.enter(Step.PLACE)
        place(tasks)
        progress.enter(Step.JOIN)
        die_with_the_launcher(channel, process)
        syscalls.setns(namespaces, flags)
        progress.enter(Step.ENTER)
        os.fchdir(root)
        os.chroot(".")
        become(process, progress, channel, stdio, status)
    except BaseException as error:
        report_and_exit(progress, channel, error)


def become(process: ProcessPlan, progress: Progress, channel: Channel, stdio: list[int], status: int) -> None:
    """The steps that take privileges away, then execve(2)."""
    progress.enter(Step.LIMITS)
    set_rlimits(process)
    progress.enter(Step.DESCRIPTORS)
    keep_only(channel, stdio, status, process)
    progress.enter(Step.DIRECTORY)
    enter_directory(process)
    progress.enter(Step.CAPABILITIES)
    drop_privileges(process)
    die_with_the_launcher(channel, process)
    progress.enter(Step.NO_NEW_PRIVILEGES)
    if process.no_new_privileges:
        syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)
    channel.send("EXECUTING")
    progress.enter(Step.SECCOMP)
    if process.seccomp:
        syscalls.seccomp_set_filter(binascii.a2b_base64(process.seccomp))
    progress.enter(Step.EXECVE)
    execute(process)


def place(tasks: list[int]) -> None:
    """Move this thread, the only one, into its v1 cgroups.

    "0" to tasks means the writer. A process moved by another, through cgroup.procs, must be kept from forking by
    a lock whose taker waits for an RCU grace period, 5 to 15 ms; moving oneself needs none (Linux 6.0).
    """
    for descriptor in tasks:
        os.write(descriptor, b"0")
        os.close(descriptor)


def die_with_the_launcher(channel: Channel, process: ProcessPlan) -> None:
    """Be killed when the launcher dies, but for who survives it; hide from /proc until execve(2) (CVE-2019-5736).

    A change of ids clears the wish (PR_SET_PDEATHSIG(2const)), so it is repeated after that. Should the
    launcher have died before, its end of the channel is closed.
    """
    syscalls.prctl(syscalls.PR_SET_DUMPABLE, 0)
    if not process.survives:
        syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)
    poll = select.poll()
    poll.register(channel.fileno(), 0)
    if poll.poll(0):
        os._exit(RUNTIME_FAILED)


def join_namespaces(plan: Plan) -> None:
    if plan.uid_map:
        os.setresgid(0, 0, 0)
        os.setresuid(0, 0, 0)
    for path, flag in plan.joins:
        descriptor = os.open(str(path), os.O_RDONLY | os.O_CLOEXEC)
        syscalls.setns(descriptor, int(str(flag)))
        os.close(descriptor)
    if plan.cgroup_namespace:
        syscalls.unshare(syscalls.CLONE_NEWCGROUP)
    if plan.loopback_up:
        bring_loopback_up()


def bring_loopback_up() -> None:
    """A new network namespace's loopback is down."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        request = struct.pack("16sH14x", b"lo", 0)
        flags = struct.unpack("16sH14x", fcntl.ioctl(any_socket, SIOCGIFFLAGS, request))[1]
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", flags | IFF_UP))


def mount_root(plan: Plan) -> mounts.Root:
    """From here on nothing mounted shows on the host, and nothing the host mounts shows here."""
    syscalls.mount("none", "/", "", syscalls.MS_REC | syscalls.MS_PRIVATE)
    operation = mounts.from_json(plan.root)
    assert isinstance(operation, mounts.OverlayRoot | mounts.DirectoryRoot)
    operation.mount()
    return mounts.Root(operation.target)


def apply(operations: list[dict[str, object]], root: mounts.Root, progress: Progress) -> None:
    for value in operations:
        operation = mounts.from_json(value)
        operation.apply(root)
        progress.did(operation.describe)


def set_sysctls(plan: Plan, root: mounts.Root) -> None:
    """Through the container's own /proc, which shows its own namespaces."""
    for name, value in plan.sysctls.items():
        opened = root.open(f"/proc/sys/{name.replace('.', '/')}")
        with open(f"/proc/self/fd/{opened}", "w") as file:
            file.write(value)
        os.close(opened)


def enter_root(plan: Plan, root: mounts.Root) -> None:
    os.chdir(root.path)
    root.close()
    if plan.enter == Enter.CHROOT:
        os.chroot(".")
    else:
        syscalls.pivot_root(".", ".")
        syscalls.umount2(".", syscalls.MNT_DETACH)
    os.chdir("/")
    if plan.read_only_root:
        syscalls.mount("none", "/", "", syscalls.MS_BIND | syscalls.MS_REMOUNT | syscalls.MS_RDONLY)


def name_host(plan: Plan) -> None:
    if plan.hostname:
        syscalls.sethostname(plan.hostname)


def set_rlimits(process: ProcessPlan) -> None:
    for number, soft, hard in process.rlimits:
        resource.setrlimit(number, (soft, hard))
    if process.oom_score_adj is not None:
        with open("/proc/self/oom_score_adj", "w") as file:
            file.write(str(process.oom_score_adj))


def keep_only(channel: Channel, stdio: list[int], status: int, process: ProcessPlan) -> None:
    """Standard input, output and error, the helper's status pipe as descriptor 3, those the caller wants to hand
    over, and the channel until execve(2).

    Closed for good rather than marked: the working directory is entered next, and an image may name
    /proc/self/fd/7 as its own (CVE-2024-21626).
    """
    wanted = [*stdio, status] if process.init else stdio
    rest = len(wanted) + process.preserve
    channel.move_to(rest)
    for number, descriptor in enumerate(wanted):
        os.dup2(descriptor, number, inheritable=True)
    kept = channel.fileno()
    if kept > rest:
        syscalls.close_range(rest, kept - 1)
    syscalls.close_range(kept + 1, 0xFFFFFFFF)


def enter_directory(process: ProcessPlan) -> None:
    """Make it if it is missing, as Docker does, and verify that it lies below the root."""
    try:
        os.chdir(process.directory)
    except FileNotFoundError:
        os.makedirs(process.directory, exist_ok=True)
        os.chdir(process.directory)
    if not os.getcwd().startswith("/"):  # getcwd(3): "(unreachable)", or ENOENT
        raise OSError(errno.EXDEV, "the working directory lies outside the root", process.directory)


def drop_privileges(process: ProcessPlan) -> None:
    """Bounding set, then ids, then the other sets: each needs what the next one takes (capabilities(7))."""
    for number in range(LAST_CAPABILITY + 1):
        if not process.bounding >> number & 1:
            syscalls.prctl(syscalls.PR_CAPBSET_DROP, number)
    syscalls.prctl(syscalls.PR_SET_KEEPCAPS, 1)
    os.umask(process.umask)
    os.setgroups(process.groups)
    os.setresgid(process.gid, process.gid, process.gid)
    os.setresuid(process.uid, process.uid, process.uid)
    syscalls.capset(effective=process.effective, permitted=process.permitted, inheritable=process.inheritable)
    syscalls.prctl(syscalls.PR_CAP_AMBIENT, syscalls.PR_CAP_AMBIENT_CLEAR_ALL)
    for number in range(LAST_CAPABILITY + 1):
        if process.ambient >> number & 1:
            syscalls.prctl(syscalls.PR_CAP_AMBIENT, syscalls.PR_CAP_AMBIENT_RAISE, number)


def restore_signals() -> None:
    """What Python and the launcher changed; ignored signals would survive execve(2)."""
    for number in (signal.SIGPIPE, signal.SIGINT, signal.SIGHUP, signal.SIGTERM, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])


def execute(process: ProcessPlan) -> None:
    """execve(2): lab's helper, whose mount no image can replace, or the application itself."""
    restore_signals()
    environment = dict(entry.partition("=")[::2] for entry in process.environment)
    if process.init:
        words = [INSIDE, "init", "--status-fd", str(STATUS_DESCRIPTOR), *process.helper, "--", *process.argv]
        os.execve(INSIDE, words, environment)
    os.execvpe(process.argv[0], process.argv, environment)


def teller(channel: Channel) -> Tell:
    """Tells the parent of each step. The last one is taken behind the seccomp filter, which may forbid it."""

    def tell(taken: dict[str, object]) -> None:
        with suppress(PermissionError):
            channel.send("STEP", taken=taken | {"side": "child"})

    return tell


def report_and_exit(progress: Progress, channel: Channel, error: BaseException) -> None:
    failure = progress.failure(error)
    code = RUNTIME_FAILED
    if progress.step == Step.EXECVE:
        code = NOT_FOUND if failure.number == errno.ENOENT else NOT_EXECUTABLE
    try:
        channel.send("FAILED", step=failure.step, number=failure.number, text=failure.text)
    finally:
        os._exit(code)
