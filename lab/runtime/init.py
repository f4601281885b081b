"""How a container starts, the child's half: from its first instruction to execve(2).

The parent's half, with the numbered steps, is `lab.runtime.container`. This runs in a fresh copy of the small
launcher process, inside the new namespaces, as a process that nothing of lab's may leak from. Each step may
only rely on those before it, hence the order:

   mounts need capabilities; the root is entered when all that it takes from outside has been mounted;
   capabilities go before no_new_privs, since dropping them is still a privilege; the seccomp filter comes last,
   because it forbids most of what the steps before it do.

Standard library only; see `lab.runtime.spawner.spawner`.
"""

from __future__ import annotations

import errno
import os
import select

from lab.host import syscalls
from lab.record import replace
from lab.runtime.channel import Channel, ChannelClosed
from lab.runtime.plan import Enter, Plan, ProcessPlan, Progress, Step
from lab.runtime.process import execve, trampoline
from lab.runtime.process.privileges import drop_privileges, leave_keyring, restore_signals, set_limits
from lab.runtime.rootfs import rootpath, streams
from lab.runtime.rootfs.setup import (
    apply,
    enter_root,
    import_no_more,
    join_namespaces,
    mount_root,
    name_host,
    open_console,
    run_hooks,
    run_start_hooks,
    set_sysctls,
)
from lab.shims import signal, suppress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lab.runtime.plan import Tell

RUNTIME_FAILED = 125  # Docker's exit code for "the container could not be started"
NOT_EXECUTABLE = 126
NOT_FOUND = 127


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
        leave_keyring(plan.process)
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
        become(process, progress, channel, stdio, status, label, plan)
    except BaseException as error:
        report_and_exit(progress, channel, error)


def released(channel: Channel, process: ProcessPlan, progress: Progress) -> ProcessPlan:
    """Wait for EXEC_NOW, and return the process with what was added to it.

    The parent says it, or WAIT with a listening socket: then somebody who connects to that says it, maybe much
    later, the parent may go, and the channel is that connection. With either it may send the seccomp filter, which it
    compiled meanwhile, and say that this comes ``early``: whoever shares the pid namespace sees this process while
    it waits and while hooks run, and then it has no rights that the application won't have.
    """
    message, descriptors = channel.receive()
    added = message.get("filter")
    if isinstance(added, dict):
        process = replace(process, **added)
    if message.get("early"):
        progress.enter(Step.SECCOMP)
        execve.prepare_filter(process)()
        process = replace(process, seccomp="", filter_follows=False)
    if message["message"] == "EXEC_NOW":
        return process
    if message["message"] != "WAIT":
        raise ValueError(f"expected EXEC_NOW or WAIT, received {message['message']}")
    progress.enter(Step.EXECVE)
    if process.argv:
        refuse_missing(process)
    channel.send("WAITING")
    while True:
        channel.close()
        channel.continue_at(Channel.accepted(descriptors[0]))
        with suppress(ChannelClosed):  # it connected and was killed
            channel.expect("EXEC_NOW")
            os.close(descriptors[0])
            return process


def refuse_missing(process: ProcessPlan) -> None:
    """A program that is nowhere is told while somebody still listens who can say 127. Raises OSError as execvpe."""
    program = process.argv[0]
    path = next((entry[len("PATH=") :] for entry in process.environment if entry.startswith("PATH=")), os.defpath)
    folders = [""] if "/" in program else path.split(":")
    for folder in folders:
        try:
            os.lstat(os.path.join(process.directory, folder, program))
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError:
            pass  # execve(2) will say
        return
    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), program)


def run_exec(
    process: ProcessPlan,
    pidfd: int,
    namespaces: int,
    root: int,
    stdio: list[int],
    between: Channel,
    channel: Channel,
    status: int,
    tasks: list[int],
) -> None:
    """Join a running container, and let a child become one more process of it. Never returns.

    ``pidfd`` is its first process, ``namespaces`` what to join of it, ``root`` its root directory. A process shows
    in a pid namespace from its birth on, to whoever may trace it there. So the child is born when nothing leads to
    the host any more, neither its root nor a descriptor, and when it has no power left that the application won't
    have. It is the parent's (CLONE_PARENT), who is told its pidfd ``between``.
    """
    progress = Progress(process.fail_at)
    try:
        progress.enter(Step.PLACE)
        place(tasks)
        set_label(process, prepare(process))
        progress.enter(Step.JOIN)
        die_with_the_launcher(channel, process)
        import_no_more()
        syscalls.setns(pidfd, namespaces)
        leave_keyring(process)
        progress.enter(Step.ENTER)
        os.fchdir(root)
        os.chroot(".")
        if process.terminal:
            progress.enter(Step.CONSOLE)
            stdio = open_console(process, rootpath.Root("/"), channel, stdio, bind=False)
        progress.enter(Step.LIMITS)
        streams.give_pipes(process, stdio)
        set_limits(replace(process, scheduler=None))  # a process with a deadline may not fork: the parent sets it
        progress.enter(Step.DESCRIPTORS)
        preserved = range(3, 3 + process.preserve)
        close_all_but(*stdio, *preserved, status, channel.fileno(), between.fileno(), *agent_of(process))
        progress.enter(Step.DIRECTORY)
        enter_directory(process)
        give_up(process, progress, channel)
        born, handle = syscalls.clone_pidfd(syscalls.CLONE_PARENT)
        if born != 0:
            between.send("BORN", descriptors=[handle])
            os._exit(0)
        between.close()
        die_with_the_launcher(channel, process)
        wait_until_numbered(process, channel)
        execute(process, progress, channel, own_only(process, channel, stdio, status))
    except BaseException as error:
        report_and_exit(progress, channel, error)


def become(
    process: ProcessPlan, progress: Progress, channel: Channel, stdio: list[int], status: int, label: int, plan: Plan
) -> None:
    """The steps that take privileges away, then execve(2)."""
    progress.enter(Step.LIMITS)
    streams.give_pipes(process, stdio)
    set_limits(process)
    set_label(process, label)
    progress.enter(Step.DESCRIPTORS)
    stub = own_only(process, channel, stdio, status)
    progress.enter(Step.DIRECTORY)
    enter_directory(process)
    give_up(process, progress, channel)
    if plan.hold:
        process = released(channel, process, progress)
    if "startContainer" in plan.hooks:
        progress.enter(Step.START_HOOKS)
        run_start_hooks(plan, execve.spawn_hook(process, stub))
    execute(process, progress, channel, stub)


def own_only(process: ProcessPlan, channel: Channel, stdio: list[int], status: int) -> int:
    """The descriptors that the application gets, and a session; what it is executed by way of is returned."""
    keep_only(channel, stdio, status, process)
    streams.take_own_null()
    stub = -1 if process.init else trampoline.make()
    lead_session(process)
    return stub


def give_up(process: ProcessPlan, progress: Progress, channel: Channel) -> None:
    """All privileges that the application won't have; but for one, see `lab.runtime.process.execve`."""
    progress.enter(Step.CAPABILITIES)
    drop_privileges(process)
    die_with_the_launcher(channel, process)
    progress.enter(Step.NO_NEW_PRIVILEGES)
    if process.no_new_privileges:
        syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)


def execute(process: ProcessPlan, progress: Progress, channel: Channel, stub: int) -> None:
    """Behind the filter nothing of ours is called but execve(2)."""
    progress.enter(Step.SECCOMP)
    ready = look_up(process, progress, stub)
    restrict_files(process)
    restore_signals()
    install = execve.prepare_filter(process)
    channel.send("EXECUTING")
    install()
    progress.enter(Step.EXECVE)
    ready.execute()


def look_up(process: ProcessPlan, progress: Progress, stub: int) -> execve.Ready:
    """What is to be executed, while every call is still allowed. Nothing there is told as execve(2)'s failure."""
    try:
        return execve.ready(process, stub)
    except OSError:
        progress.step = Step.EXECVE
        raise


def restrict_files(process: ProcessPlan) -> None:
    """Landlock, for whom it is asked for: like a filter it takes no_new_privs, or CAP_SYS_ADMIN."""
    if process.read_only_by_landlock:
        from lab.runtime.process import landlock

        landlock.restrict(process.read_only_by_landlock)


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
    """While this is still the host's root, who may pass folders that root of a user namespace may not; and while
    this is still the runtime's mount namespace, if another is to be joined.
    """
    if not plan.own_users and plan.enter != Enter.IN_PLACE:
        return -1
    if not plan.own_users and any(flag == syscalls.CLONE_NEWNS for _, flag in plan.joins):
        tree = syscalls.open_tree(plan.mount_point, recursive=True)  # nothing is above it: ".." ends there
        syscalls.mount_setattr(tree, 0, 0, propagation=syscalls.MS_PRIVATE, recursive=True)
        return tree
    return os.open(plan.mount_point, syscalls.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)


def import_early(process: ProcessPlan, plan: Plan | None = None) -> None:
    """By the parent: modules that few have a use for. A child can't import its own: in a user namespace it may not
    read what belongs to others than root, and behind the new root there are other files.
    """
    if process.terminal:
        from lab.runtime.rootfs import console  # noqa: F401
    if not execve.has_home(process):
        from lab.runtime.process import account  # noqa: F401
    if process.read_only_by_landlock:
        from lab.runtime.process import landlock  # noqa: F401
    if process.agent:
        from lab.runtime.seccomp import listener  # noqa: F401
    if plan is None:
        return
    if plan.hooks:
        from lab.runtime import hooks  # noqa: F401
    if plan.enter == Enter.MOVE:
        from lab.runtime.rootfs import nopivot  # noqa: F401
    if any(operation.get("copy_up") for operation in plan.mounts):
        from lab.runtime.rootfs import copyup  # noqa: F401


def prepare(process: ProcessPlan) -> int:
    """What takes the host's files: the score, an agent, and the file for a label, open; -1 without one."""
    if process.oom_score_adj is not None:
        with open("/proc/self/oom_score_adj", "w") as file:
            file.write(str(process.oom_score_adj))
    if process.agent:
        from lab.runtime.seccomp import listener

        listener.meet(process.agent)
    return os.open(process.exec_label[0], os.O_WRONLY | os.O_CLOEXEC) if process.exec_label else -1


def set_label(process: ProcessPlan, label: int) -> None:
    """What an LSM is to call the process from execve(2) on; a child inherits the wish."""
    if label >= 0:
        os.write(label, process.exec_label[1].encode())
        os.close(label)


def agent_of(process: ProcessPlan) -> list[int]:
    """The descriptor of the connection to the agent, if there is one."""
    if not process.agent:
        return []
    from lab.runtime.seccomp import listener

    return [listener.agent().fileno()]


def wait_until_numbered(process: ProcessPlan, channel: Channel) -> None:
    """The parent has something to do by its number, which is another one in here: the agent is told it as well."""
    if process.scheduler is not None or process.agent:
        pid = int(str(channel.expect("NUMBERED")["pid"]))
        if process.agent:
            from lab.runtime.seccomp import listener

            listener.agent().pid = pid


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
        from lab.runtime.seccomp import listener

        others.append(listener.agent().move_to(rest))
    for number, descriptor in enumerate(wanted):
        os.dup2(descriptor, number, inheritable=True)
    for kept in sorted([channel.fileno(), *others]):
        if kept > rest:
            syscalls.close_range(rest, kept - 1)
        rest = kept + 1
    syscalls.close_range(rest, 0xFFFFFFFF)


def close_all_but(*kept: int) -> None:
    """Every other descriptor."""
    rest = 0
    for descriptor in sorted({each for each in kept if each >= 0}):
        if descriptor > rest:
            syscalls.close_range(rest, descriptor - 1)
        rest = descriptor + 1
    syscalls.close_range(rest, 0xFFFFFFFF)


def lead_session(process: ProcessPlan) -> None:
    """Who survives its starter does not hang on the starter's terminal; a terminal of its own controls it. A session
    whose leader is outside can't be saved (criu(8), --shell-job).
    """
    if process.terminal:
        from lab.runtime.rootfs import console

        console.control()
    elif process.survives or process.leads:
        os.setsid()


def enter_directory(process: ProcessPlan) -> None:
    """Verify that it lies below the root. That of a first process has been made, if it was missing; one that is
    missing for a further process is an error, and nothing is made.
    """
    os.chdir(process.directory)
    if not os.getcwd().startswith("/"):  # getcwd(3): "(unreachable)", or ENOENT
        raise OSError(errno.EXDEV, "the working directory lies outside the root", process.directory)


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
