"""How a container starts, the parent's half. Read `start` below, then `lab.runtime.init.run`.

A container is an ordinary process around which the kernel draws borders before it may run foreign code:

    parent, here                             child, lab.runtime.init
 1. clone                                →   first instruction, in new namespaces and its v2 cgroup
 2. map ids                 IDS_MAPPED   →
 3.                                          place in cgroups: itself, in those of v1
 4.                                          join namespaces given by path; own cgroup namespace
 5.                                          mount the root; from here on no mount of its own shows on the host
 6.                                          mount /proc, /dev, /sys, …
 7. run hooks               HOOKS_RUN   ⇄    MOUNTED; run hooks of its own side
 8.                                     ←    CONSOLE: open the terminal
 9.                                          mask paths, lock others
10.                                          enter the root by pivot_root: the host's files are out of reach
11.                                     ←    set the hostname; ISOLATED
12.                                          set rlimits and what else is a process's own
13.                                          close descriptors
14.                                          enter the working directory
15.                                          drop capabilities, change user and groups
16.                                          set no_new_privs
    let it go               EXEC_NOW     →   for a held one that waits long or has hooks, step 18's filter comes here
17.                                          run startContainer hooks: they may no more than the application
18.                                     ←    look up the program; EXECUTING; install the seccomp filter
19. end of file on the channel          ←    execve: foreign code runs from here on

The child waits at step 2 for a user namespace, at 7 for hooks, after 16 if it is to be held, and nowhere else: a
wait costs two switches between processes, more on a busy host. Steps 7, 8 and 17 are left out where nobody has a use
for them. `lab run --explain` prints them as they happen.

It is in its cgroups before it does any work, so that its memory is charged to it from the first page on, and
cannot outgrow its limits in the meantime. Whatever fails is answered by one FAILED message with the step's name,
and the child is gone; what the parent had made, the parent removes.

Most containers of `lab run` and of what measures are started otherwise: the same steps by the same calls, written as
a script of system calls (`lab.runtime.scripts.child`), which a small static program carries out
(`lab/inside/begin.c`). A copy of that costs less than one of this interpreter. What is told here is the reference, by
which every plan can be started: those that `can_be` there leaves out (user namespaces, hooks, …),
what is explained, what a script has failed for, and all of `lab-oci`.

Standard library only; see `lab.runtime.spawner.spawner`.
"""

from __future__ import annotations

import _socket
import os

from lab.host import syscalls
from lab.runtime import init
from lab.runtime.channel import Channel, ChannelClosed
from lab.runtime.plan import CgroupsPlan, Plan, ProcessPlan, Progress, Step, StepFailed
from lab.runtime.within import ChildrenIn, clone, clone_within, outside, pid_of
from lab.shims import signal, suppress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from lab.runtime.plan import Tell

JOINED = (
    syscalls.CLONE_NEWUSER
    | syscalls.CLONE_NEWNS
    | syscalls.CLONE_NEWUTS
    | syscalls.CLONE_NEWIPC
    | syscalls.CLONE_NEWNET
    | syscalls.CLONE_NEWCGROUP
    | syscalls.CLONE_NEWTIME
)


class Started:
    """A child on its way to execve: what the parent holds of it."""

    def __init__(self, pid: int, pidfd: int, channel: Channel, status: int) -> None:
        self.pid = pid
        self.pidfd = pidfd
        self.channel = channel
        self.status = status  # the read end of the status pipe
        self.stamps: dict[str, float] = {}

    def tell(self, name: str, descriptors: Sequence[int] = (), **fields: object) -> None:
        """Send it a message. If it has failed meanwhile, its own last words say why, and better."""
        with suppress(ChannelClosed):
            self.channel.send(name, descriptors=descriptors, **fields)

    def kill(self) -> None:
        """SIGKILL; with it dies everything in its pid namespace."""
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)

    def close(self) -> None:
        """Close what is still open of it. Idempotent."""
        self.channel.close()
        for name in ("status", "pidfd"):
            if getattr(self, name) >= 0:
                os.close(getattr(self, name))
                setattr(self, name, -1)


def start(plan: Plan, stdio: list[int], tell: Tell | None = None) -> Started:
    """Steps 1, 2 and 7; the child goes on by itself. Raises StepFailed, and then nothing is left of it.

    ``tell`` hears of each step of this half; of the child's, its channel brings a STEP if ``plan.explain``.
    """
    started = begin(plan, stdio, tell)
    try:
        accompany(plan, started, tell)
    except StepFailed:
        abandon(started)
        raise
    return started


def begin(plan: Plan, stdio: list[int], tell: Tell | None) -> Started:
    """Step 1. Raises StepFailed."""
    progress = Progress(plan.fail_at, tell)
    try:
        progress.enter(Step.CLONE)
        with ChildrenIn(plan.born_in, plan.time_offsets if plan.new_time else None):
            become = _restorer() if plan.criu else init.run
            init.import_early(plan.process, plan)
            started = fork(plan.clone_flags, plan.cgroups, lambda *ends: become(plan, stdio, *ends), outside(plan))
        progress.finish()
    except Exception as error:
        raise progress.failure(error) from error
    return started


def accompany(plan: Plan, started: Started, tell: Tell | None) -> None:
    """Steps 2 and 7, which may take as long as a hook likes. Raises StepFailed; the child is the caller's still."""
    progress = Progress(plan.fail_at, tell)
    try:
        progress.enter(Step.MAP_IDS)
        if plan.trees:
            map_ids(started, plan)
        if "prestart" in plan.hooks or "createRuntime" in plan.hooks:
            progress.enter(Step.HOOKS)
            run_hooks(plan, started, tell)
        progress.finish()
    except Exception as error:
        raise progress.failure(error) from error


def _restorer() -> Callable[..., None]:
    from lab.runtime import restorer  # few have any use for it

    return restorer.run


def start_exec(
    process: ProcessPlan, pidfd: int, root: int, namespaces: int, cgroups: CgroupsPlan, stdio: list[int]
) -> Started:
    """One more process in the container whose first process is ``pidfd``: setns(2) instead of clone's flags.

    A process can't change its own pid namespace, only that of its children to come. So a go-between joins the
    container, and the process is its child, but ours to wait for. Raises StepFailed.
    """
    started, channel = begin_exec(process, pidfd, root, namespaces, cgroups, stdio)
    end_exec(process, started, channel)
    return started


def begin_exec(
    process: ProcessPlan, pidfd: int, root: int, namespaces: int, cgroups: CgroupsPlan, stdio: list[int]
) -> tuple[Started, Channel]:
    """Start the go-between; it says on the channel whom it has borne, and ends. Raises StepFailed."""
    progress = Progress(process.fail_at)
    ours, theirs = Channel.pair()
    try:
        progress.enter(Step.CLONE)
        init.import_early(process)
        joined = namespaces & (JOINED | syscalls.CLONE_NEWPID)
        if process.affinity is not None and process.affinity[0]:
            os.sched_setaffinity(0, process.affinity[0])  # inherited, and ours as well (config.md "execCPUAffinity")
        started = fork(
            0,
            cgroups,
            lambda *ends: init.run_exec(process, pidfd, joined, root, stdio, theirs, *ends),
        )
    except Exception as error:
        ours.close()
        raise progress.failure(error) from error
    finally:
        theirs.close()
    return started, ours


def end_exec(process: ProcessPlan, started: Started, channel: Channel) -> None:
    """From now on ``started`` is the process itself. Waits for the go-between; raises StepFailed, and then nothing is
    left of it.
    """
    try:
        take_child_of(started, channel)
    except Exception as error:
        abandon(started)
        raise Progress().failure(error) from error
    finally:
        channel.close()
    if process.scheduler is not None or process.agent:
        number(process, started)


def number(process: ProcessPlan, started: Started) -> None:
    """What takes its number, as only we know it, and a power that it has given up. Raises StepFailed."""
    try:
        if process.scheduler is not None:
            syscalls.sched_setattr(started.pid, **process.scheduler)
        started.channel.send("NUMBERED", pid=started.pid)
    except ChannelClosed:
        pass  # its own last words say why
    except OSError as error:
        abandon(started)
        raise StepFailed(Step.LIMITS, error.errno or 0, error.strerror or "") from error


def take_child_of(between: Started, channel: Channel) -> None:
    """From now on ``between`` is the child that the go-between has borne. Raises StepFailed for its last words."""
    try:
        _, (pidfd,) = channel.receive()
    except ChannelClosed:
        try:
            message, _ = between.channel.receive()
        except ChannelClosed:
            raise StepFailed(Step.CLONE, 0, "its go-between was killed") from None
        raise StepFailed(str(message["step"]), int(str(message["number"])), str(message["text"])) from None
    os.waitpid(between.pid, 0)
    os.close(between.pidfd)
    between.pid, between.pidfd = pid_of(pidfd), pidfd


def run_hooks(plan: Plan, started: Started, tell: Tell | None) -> None:
    """The hooks of this side, between the child's mounts and its new root. Raises StepFailed, OSError."""
    from lab.runtime import hooks

    while True:
        message, _ = started.channel.receive()
        if message["message"] == "MOUNTED":
            break
        if message["message"] == "FAILED":
            raise StepFailed(str(message["step"]), int(str(message["number"])), str(message["text"]))
        if tell is not None and message["message"] == "STEP":
            taken = message["taken"]
            assert isinstance(taken, dict)
            tell(taken)
    for name in ("prestart", "createRuntime"):
        hooks.run(name, plan.hooks.get(name, ()), plan.state | {"pid": started.pid})
    started.tell("HOOKS_RUN")


def fork(
    namespaces: int,
    cgroups: CgroupsPlan,
    child: Callable[[Channel, int, list[int]], None],
    within: Sequence[Sequence[Any]] = (),
) -> Started:
    """clone(2) into new ``namespaces``; the child gets its ends of the channel and of the status pipe, and the v1
    tasks files, opened here because root in a user namespace may not. ``within`` others, as `outside` has them.
    """
    ours, theirs = Channel.pair()
    status_read, status_write = status_pair()
    tasks: list[int] = []
    try:
        tasks.extend(os.open(path, os.O_WRONLY | os.O_CLOEXEC) for path in cgroups.tasks)
        if within:
            pid, pidfd = clone_within(within, namespaces, cgroups.unified)
        else:
            pid, pidfd = clone(namespaces, cgroups.unified)
    except (OSError, StepFailed):
        ours.close()
        os.close(status_read)
        raise
    else:
        if pid == 0:
            try:
                ours.close()
                child(theirs, status_write, tasks)
            finally:
                os._exit(init.RUNTIME_FAILED)
        return Started(pid, pidfd, ours, status_read)
    finally:
        theirs.close()
        for descriptor in (status_write, *tasks):
            os.close(descriptor)


def status_pair() -> tuple[int, int]:
    """Two ends, the second for lab's helper: it writes an errno, or closes it by execve(2).

    A socket, because a pipe could be opened once more by ``/proc/PID/fd`` inside, and written to or held.
    """
    ours, theirs = _socket.socketpair()
    return ours.detach(), theirs.detach()


def map_ids(started: Started, plan: Plan) -> None:
    """Which ids of the host stand behind those of the user namespace (user_namespaces(7)), and behind mounts' own."""
    from lab.runtime.rootfs import idmap

    if plan.uid_map:
        idmap.write(f"/proc/{started.pid}/uid_map", plan.uid_map)
        idmap.write(f"/proc/{started.pid}/gid_map", plan.gid_map)
    trees = idmap.trees(plan, started.pid)
    try:
        started.tell("IDS_MAPPED", trees)
    finally:
        for descriptor in trees:
            os.close(descriptor)


def abandon(started: Started | None) -> None:
    """Kill it and reap it, if there is one."""
    if started is None:
        return
    started.kill()
    os.waitpid(started.pid, 0)
    started.close()
