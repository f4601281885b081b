"""How a container is restored, the child's half, up to the moment when it becomes criu(8).

What each instance has of its own is made as for any other, by the same steps, and then criu works inside of it: it
takes these for its own surroundings, and what it makes is born in them. The parent's half is `lab.runtime.container`,
and who told criu to save and to restore is `lab.runtime.launcher.checkpoint`.

    made here, before criu                     restored by criu
    control groups, their namespace            pid, ipc, mount and time namespaces
    network namespace, with another address    mounts, upon the root that was mounted here
    host name, in a UTS namespace              processes: memory, descriptors, capabilities, system call filter
    the root, with a layer of its own
    no_new_privs, which criu 3.17 forgets

So its memory is charged to its own group from the first page on, and criu's is too, until it ends; and no process of
it ever sees the host's groups. criu's child takes criu's parent for its own (CLONE_PARENT): our parent.

Standard library only; see `lab.runtime.spawner.spawner`.
"""

from __future__ import annotations

import fcntl
import os

from lab.host import syscalls
from lab.runtime.init import die_with_the_launcher, keep_only, place, report_and_exit, teller
from lab.runtime.plan import Instead, Progress, Step
from lab.runtime.process.privileges import restore_signals
from lab.runtime.rootfs import streams
from lab.runtime.rootfs.setup import join_namespaces, mount_root, name_host

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lab.runtime.channel import Channel
    from lab.runtime.plan import Plan

RUN, CACHE = "/run", "/run/criu.kdat"  # as `lab.host.survey.criu` has them
FIRST_STREAM = 3
"""The number at which criu finds the application's standard input; output and errors follow. 0, 1, 2 are its own."""
OUT_OF_THE_WAY = 16
PATH = "/usr/sbin:/usr/bin:/sbin:/bin"  # criu runs tar(1), for what was in a tmpfs


def run(plan: Plan, stdio: list[int], channel: Channel, status: int, tasks: list[int]) -> None:
    """Become criu, in the surroundings that the restored processes get. Never returns."""
    progress = Progress(plan.fail_at, teller(channel) if plan.explain else None)
    try:
        progress.enter(Step.PLACE)
        place(tasks)
        die_with_the_launcher(channel, plan.process)
        progress.enter(Step.JOIN)
        join_namespaces(plan)
        progress.enter(Step.ROOT)
        stdio = [streams.guarded(one) for one in stdio]
        mount_root(plan, -1, [])
        tell_criu(plan.criu_knows)
        progress.enter(Step.HOSTNAME)
        name_host(plan)
        channel.send("ISOLATED")
        progress.enter(Step.DESCRIPTORS)
        opened = [fcntl.fcntl(one, fcntl.F_DUPFD_CLOEXEC, OUT_OF_THE_WAY) for one in (*stdio, 2, 2)]
        keep_only(channel, [opened[0], *opened[3:], *opened[:3]], status, plan.process)
        progress.enter(Step.NO_NEW_PRIVILEGES)
        if plan.process.no_new_privileges:
            syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)
        channel.send("EXECUTING")
        progress.enter(Instead.CRIU)
        restore_signals()
        os.execve(plan.criu[0], plan.criu, {"PATH": PATH})
    except BaseException as error:
        report_and_exit(progress, channel, error)


def tell_criu(known: str) -> None:
    """What it found out about the kernel when it might do more than it may in here, in a /run of its own: what it
    would find here, the host's would believe.
    """
    with open(known, "rb") as file:
        content = file.read()
    syscalls.mount("tmpfs", RUN, "tmpfs", 0, "")
    with open(CACHE, "wb") as file:
        file.write(content)
