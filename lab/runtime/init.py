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

import _socket
import binascii
import errno
import fcntl
import os
import select
import struct

from lab.host import syscalls
from lab.lean import signal, suppress
from lab.record import replace
from lab.runtime import mounts, rooted
from lab.runtime.channel import Channel, ChannelClosed
from lab.runtime.plan import INSIDE, Enter, Plan, ProcessPlan, Progress, Step
from lab.runtime.privileges import drop_privileges, restore_signals, set_limits

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lab.runtime.plan import Tell

RUNTIME_FAILED = 125  # Docker's exit code for "the container could not be started"
NOT_EXECUTABLE = 126
NOT_FOUND = 127

STATUS_DESCRIPTOR = 3
SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 0x1  # netdevice(7)


def run(plan: Plan, stdio: list[int], channel: Channel, status: int, tasks: list[int]) -> None:
    """Become the container's first process. Never returns."""
    progress = Progress(plan.fail_at, teller(channel) if plan.explain else None)
    process = plan.process
    try:
        progress.enter(Step.PLACE)
        place(tasks)
        label = prepare(plan.process)
        trees = wait_for_ids(plan, channel)
        die_with_the_launcher(channel, plan.process)
        progress.enter(Step.JOIN)
        place_of_root = open_place_of_root(plan)
        join_namespaces(plan)
        progress.enter(Step.ROOT)
        root = mount_root(plan, place_of_root, trees)
        progress.enter(Step.MOUNTS)
        apply(plan.mounts, root, progress)
        set_sysctls(plan, root)
        if plan.hooks:
            progress.enter(Step.HOOKS)
            run_hooks(plan, channel)
        if plan.process.terminal:
            progress.enter(Step.CONSOLE)
            stdio = open_console(plan.process, root, channel, stdio, bind=True)
        progress.enter(Step.MASKS)
        apply(plan.masks, root, progress)
        progress.enter(Step.ENTER)
        enter_root(plan, root)
        progress.enter(Step.HOSTNAME)
        name_host(plan)
        channel.send("ISOLATED")
        if plan.hold:
            channel, process = released(channel, process, progress)
        if "startContainer" in plan.hooks:
            progress.enter(Step.START_HOOKS)
            run_start_hooks(plan)
        become(process, progress, channel, stdio, status, label)
    except BaseException as error:
        report_and_exit(progress, channel, error)


def released(channel: Channel, process: ProcessPlan, progress: Progress) -> tuple[Channel, ProcessPlan]:
    """Wait for EXEC_NOW, and return the channel that brought it, and the process with what was added to it.

    The parent says it, or WAIT with a listening socket: then somebody who connects to that says it, maybe much
    later, and the parent may go. With either it may send the seccomp filter, which it compiled meanwhile.
    """
    message, descriptors = channel.receive()
    added = message.get("filter")
    if isinstance(added, dict):
        process = replace(process, **added)
    if message["message"] == "EXEC_NOW":
        return channel, process
    if message["message"] != "WAIT":
        raise ValueError(f"expected EXEC_NOW or WAIT, received {message['message']}")
    progress.enter(Step.EXECVE)
    refuse_missing(process)
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
            return channel, process


def refuse_missing(process: ProcessPlan) -> None:
    """A program that is nowhere is told while somebody still listens who can say 127. Raises OSError as execvpe."""
    program = process.argv[0]
    path = next((entry[len("PATH=") :] for entry in process.environment if entry.startswith("PATH=")), os.defpath)
    folders = [""] if "/" in program else path.split(":")
    if not any(os.path.lexists(os.path.join(process.directory, folder, program)) for folder in folders):
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), program)


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
        label = prepare(process)
        progress.enter(Step.JOIN)
        die_with_the_launcher(channel, process)
        syscalls.setns(namespaces, flags)
        progress.enter(Step.ENTER)
        os.fchdir(root)
        os.chroot(".")
        if process.terminal:
            progress.enter(Step.CONSOLE)
            stdio = open_console(process, rooted.Root("/"), channel, stdio, bind=False)
        become(process, progress, channel, stdio, status, label)
    except BaseException as error:
        report_and_exit(progress, channel, error)


def become(
    process: ProcessPlan, progress: Progress, channel: Channel, stdio: list[int], status: int, label: int
) -> None:
    """The steps that take privileges away, then execve(2)."""
    progress.enter(Step.LIMITS)
    set_limits(process, label)
    progress.enter(Step.DESCRIPTORS)
    keep_only(channel, stdio, status, process)
    lead_session(process)
    progress.enter(Step.DIRECTORY)
    enter_directory(process)
    if not process.no_new_privileges:
        filter_calls(process, progress, channel)
    progress.enter(Step.CAPABILITIES)
    drop_privileges(process)
    die_with_the_launcher(channel, process)
    progress.enter(Step.NO_NEW_PRIVILEGES)
    if process.no_new_privileges:
        syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)
        filter_calls(process, progress, channel)
    progress.enter(Step.EXECVE)
    execute(process)


def filter_calls(process: ProcessPlan, progress: Progress, channel: Channel) -> None:
    """From here on the filter may forbid whatever follows, sending messages included.

    So it comes last, where no_new_privs allows that. Without it only CAP_SYS_ADMIN does (seccomp(2)): the filter then
    comes before capabilities are dropped, and has to let that pass.
    """
    channel.send("EXECUTING")
    progress.enter(Step.SECCOMP)
    if process.agent:
        from lab.runtime import listener

        listener.agent().install(binascii.a2b_base64(process.seccomp), process.seccomp_flags)
    elif process.seccomp:
        syscalls.seccomp_set_filter(binascii.a2b_base64(process.seccomp), process.seccomp_flags)


def place(tasks: list[int]) -> None:
    """Move this thread, the only one, into its v1 cgroups.

    "0" to tasks means the writer. A process moved by another, through cgroup.procs, must be kept from forking by
    a lock whose taker waits for an RCU grace period, 5 to 15 ms; moving oneself needs none (Linux 6.0).
    """
    for descriptor in tasks:
        os.write(descriptor, b"0")
        os.close(descriptor)


def wait_for_ids(plan: Plan, channel: Channel) -> list[int]:
    """Until the parent has mapped them, and the mounts that it makes for us, in the order of their operations."""
    if not plan.trees:
        return []
    message, trees = channel.receive()
    if message["message"] != "IDS_MAPPED":
        raise ValueError(f"expected IDS_MAPPED, received {message['message']}")
    return trees


def open_place_of_root(plan: Plan) -> int:
    """While this is still the host's root, who may pass folders that root of a user namespace may not."""
    return os.open(plan.mount_point, syscalls.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC) if plan.own_users else -1


def prepare(process: ProcessPlan) -> int:
    """What takes the host's files: a module, the score, an agent, and the file for a label, open; -1 without one."""
    if process.terminal:
        from lab.runtime import console  # noqa: F401
    if process.oom_score_adj is not None:
        with open("/proc/self/oom_score_adj", "w") as file:
            file.write(str(process.oom_score_adj))
    if process.agent:
        from lab.runtime import listener

        listener.meet(process.agent)
    return os.open(process.exec_label[0], os.O_WRONLY | os.O_CLOEXEC) if process.exec_label else -1


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
    if plan.own_users:
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
    any_socket = _socket.socket(_socket.AF_INET, _socket.SOCK_DGRAM)
    request = struct.pack("16sH14x", b"lo", 0)
    flags = struct.unpack("16sH14x", fcntl.ioctl(any_socket, SIOCGIFFLAGS, request))[1]
    fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", flags | IFF_UP))
    any_socket.close()


def mount_root(plan: Plan, place: int, trees: list[int]) -> rooted.Root:
    """From here on nothing mounted shows on the host; what the host mounts shows at most in what is bound of it.

    Unless linux.rootfsPropagation says otherwise. But whatever that says, the root itself is ours alone.
    """
    syscalls.mount("none", "/", "", plan.propagation)
    if plan.own_users:
        syscalls.move_mount(trees[0], place)
        os.close(place)
        return rooted.Root(trees[0], trees[1:])
    operation = mounts.from_json(plan.root)
    assert isinstance(operation, mounts.OverlayRoot | mounts.DirectoryRoot)
    if plan.propagation & syscalls.MS_SHARED:
        make_private_around(operation.target)
    operation.mount()
    return rooted.Root(operation.target, trees)


def make_private_around(place: str) -> None:
    """The mount that ``place`` lies in: what is mounted there then shows nowhere else."""
    while True:
        try:
            syscalls.mount("none", place, "", syscalls.MS_PRIVATE)
            return
        except OSError as error:
            if error.errno != errno.EINVAL or place == "/":  # EINVAL: not a mount point
                raise
        place = os.path.dirname(place)


def apply(operations: list[dict[str, object]], root: rooted.Root, progress: Progress) -> None:
    for value in operations:
        operation = mounts.from_json(value)
        operation.apply(root)
        progress.did(operation.describe)


def set_sysctls(plan: Plan, root: rooted.Root) -> None:
    """Through the container's own /proc, which shows its own namespaces."""
    for name, value in plan.sysctls.items():
        opened = root.open(f"/proc/sys/{name.replace('.', '/')}")
        with open(f"/proc/self/fd/{opened}", "w") as file:
            file.write(value)
        os.close(opened)


def run_hooks(plan: Plan, channel: Channel) -> None:
    """Those of the parent's side first, while this waits; then those that run here but are the host's programs."""
    from lab.runtime import hooks

    if "prestart" in plan.hooks or "createRuntime" in plan.hooks:
        channel.send("MOUNTED")
        channel.expect("HOOKS_RUN")
    hooks.run("createContainer", plan.hooks.get("createContainer", ()), plan.state | {"pid": os.getpid()})


def run_start_hooks(plan: Plan) -> None:
    """Those that run here and are the container's programs."""
    from lab.runtime import hooks

    state = plan.state | {"pid": os.getpid(), "status": "created"}
    hooks.run("startContainer", plan.hooks["startContainer"], state)


def open_console(
    process: ProcessPlan, root: rooted.Root, channel: Channel, stdio: list[int], *, bind: bool
) -> list[int]:
    """A terminal in place of the first three of ``stdio``, at once: who waits to be started holds none of others.

    ``bind`` makes it /dev/console too: of the container's first process, not of one beside it.
    """
    from lab.runtime import console

    terminal = console.open_inside(root, process, channel)
    if bind:
        console.bind_to_dev_console(root, terminal)
    for number in range(3):
        os.dup2(terminal, number)
    os.close(terminal)
    return [0, 1, 2, *stdio[3:]]


def enter_root(plan: Plan, root: rooted.Root) -> None:
    """The old root is made a slave before it is unmounted: that must not reach those who share its mounts."""
    old = os.open("/", syscalls.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    os.fchdir(root.fileno())
    root.close()
    if plan.enter == Enter.CHROOT:
        os.chroot(".")
    elif plan.enter == Enter.MOVE:
        syscalls.mount(".", "/", "", syscalls.MS_MOVE)
        os.chroot(".")
    else:
        syscalls.pivot_root(".", ".")
        os.fchdir(old)
        syscalls.mount("none", ".", "", syscalls.MS_REC | syscalls.MS_SLAVE)
        syscalls.umount2(".", syscalls.MNT_DETACH)
    os.close(old)
    os.chdir("/")
    if plan.root_propagation:
        syscalls.mount("none", "/", "", plan.root_propagation)
    if plan.read_only_root:
        rooted.make_read_only("/")


def name_host(plan: Plan) -> None:
    if plan.hostname:
        syscalls.sethostname(plan.hostname)
    if plan.domainname:
        syscalls.setdomainname(plan.domainname)


def keep_only(channel: Channel, stdio: list[int], status: int, process: ProcessPlan) -> None:
    """Standard input, output and error, the helper's status pipe as descriptor 3, those the caller wants to hand
    over, and the channel until execve(2).

    Closed for good rather than marked: the working directory is entered next, and an image may name
    /proc/self/fd/7 as its own (CVE-2024-21626).
    """
    wanted = [*stdio, status] if process.init else stdio
    rest = len(wanted) + process.preserve
    channel.move_to(rest)
    others = []
    if process.agent:
        from lab.runtime import listener

        others.append(listener.agent().move_to(rest))
    for number, descriptor in enumerate(wanted):
        os.dup2(descriptor, number, inheritable=True)
    for kept in sorted([channel.fileno(), *others]):
        if kept > rest:
            syscalls.close_range(rest, kept - 1)
        rest = kept + 1
    syscalls.close_range(rest, 0xFFFFFFFF)


def lead_session(process: ProcessPlan) -> None:
    """Who survives its starter does not hang on the starter's terminal; a terminal of its own controls it."""
    if process.terminal:
        from lab.runtime import console

        console.control()
    elif process.survives:
        os.setsid()


def enter_directory(process: ProcessPlan) -> None:
    """Make it if it is missing, as Docker does, and verify that it lies below the root."""
    try:
        os.chdir(process.directory)
    except FileNotFoundError:
        os.makedirs(process.directory, exist_ok=True)
        os.chdir(process.directory)
    if not os.getcwd().startswith("/"):  # getcwd(3): "(unreachable)", or ENOENT
        raise OSError(errno.EXDEV, "the working directory lies outside the root", process.directory)


def execute(process: ProcessPlan) -> None:
    """execve(2): lab's helper, whose mount no image can replace, or the application itself."""
    restore_signals()
    environment = dict(entry.partition("=")[::2] for entry in process.environment)
    if process.init:
        words = [INSIDE, "init", "--status-fd", str(STATUS_DESCRIPTOR), *process.helper, "--", *process.argv]
        os.execve(INSIDE, words, environment)
    search_and_execute(process.argv, environment)


def search_and_execute(argv: list[str], environment: dict[str, str]) -> None:
    """execvp(3) with an environment. Python's imports a module for it, and there are none below this root."""
    program, denied = argv[0], False
    places = environment.get("PATH", os.defpath).split(":") if "/" not in program else [""]
    for place in places:
        try:
            os.execve(f"{place}/{program}" if place else program, argv, environment)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except PermissionError:
            denied = True
        except OSError as error:
            raise OSError(error.errno, error.strerror, program) from error
    number = errno.EACCES if denied else errno.ENOENT
    raise OSError(number, os.strerror(number), program)


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
