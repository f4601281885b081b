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
import os
import select

from lab.host import syscalls
from lab.lean import signal, suppress
from lab.record import replace
from lab.runtime import rooted, trampoline
from lab.runtime.channel import Channel, ChannelClosed
from lab.runtime.plan import INSIDE, Plan, ProcessPlan, Progress, Step
from lab.runtime.privileges import drop_privileges, restore_signals, set_limits
from lab.runtime.surroundings import (
    apply,
    enter_root,
    join_namespaces,
    mount_root,
    name_host,
    open_console,
    run_hooks,
    run_start_hooks,
    set_sysctls,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lab.runtime.plan import Tell

RUNTIME_FAILED = 125  # Docker's exit code for "the container could not be started"
NOT_EXECUTABLE = 126
NOT_FOUND = 127

STATUS_DESCRIPTOR = 3


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
    later, and the parent may go; what of its descriptors would outlive it, its lock, it wants closed. With either
    it may send the seccomp filter, which it compiled meanwhile.
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
    for number in message["close"] if isinstance(message["close"], list) else ():
        os.close(number)
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
    progress = Progress(process.fail_at)
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
    stub = -1 if process.init else trampoline.make()
    lead_session(process)
    progress.enter(Step.DIRECTORY)
    enter_directory(process)
    if not process.no_new_privileges:
        restrict_files(process)
        filter_calls(process, progress, channel)
    progress.enter(Step.CAPABILITIES)
    drop_privileges(process)
    die_with_the_launcher(channel, process)
    progress.enter(Step.NO_NEW_PRIVILEGES)
    if process.no_new_privileges:
        syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)
        restrict_files(process)
        filter_calls(process, progress, channel)
    progress.enter(Step.EXECVE)
    execute(process, stub)


def restrict_files(process: ProcessPlan) -> None:
    """Landlock, for whom it is asked for: like a filter it takes no_new_privs, or CAP_SYS_ADMIN."""
    if process.read_only_by_landlock:
        from lab.runtime import landlock

        landlock.restrict(process.read_only_by_landlock)


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
    if process.read_only_by_landlock:
        from lab.runtime import landlock  # noqa: F401
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
    """Who survives its starter does not hang on the starter's terminal; a terminal of its own controls it. A session
    whose leader is outside can't be saved (criu(8), --shell-job).
    """
    if process.terminal:
        from lab.runtime import console

        console.control()
    elif process.survives or process.leads:
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


def execute(process: ProcessPlan, stub: int) -> None:
    """execve(2): lab's helper, whose mount no image can replace, or the application by way of ``stub``: never
    straight from the host's interpreter.
    """
    restore_signals()
    environment = dict(entry.partition("=")[::2] for entry in process.environment)
    if process.init:
        words = [INSIDE, "init", "--status-fd", str(STATUS_DESCRIPTOR), *process.helper, "--", *process.argv]
        os.execve(INSIDE, words, environment)
    trampoline.execute(stub, process.argv, environment)


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
