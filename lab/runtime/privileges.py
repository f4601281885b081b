"""What a process may do, taken away or bounded before it executes foreign code (capabilities(7), getrlimit(2))."""

from __future__ import annotations

import os
import resource

from lab.host import syscalls
from lab.lean import signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lab.runtime.plan import ProcessPlan

with open("/proc/sys/kernel/cap_last_cap") as _file:
    LAST_CAPABILITY = int(_file.read())


def set_limits(process: ProcessPlan, label: int) -> None:
    """rlimits, and what else is the process's own and needs privileges: scheduling, personality, a label."""
    for number, soft, hard in process.rlimits:
        resource.setrlimit(number, (soft, hard))
    if process.scheduler is not None:
        syscalls.sched_setattr(**process.scheduler)
    if process.io_priority is not None:
        syscalls.ioprio_set(*process.io_priority)
    if process.persona is not None:
        syscalls.personality(process.persona)
    if process.mergeable:
        syscalls.prctl(syscalls.PR_SET_MEMORY_MERGE, 1)  # stays over fork(2), and since Linux 6.7 over execve(2)
    if label >= 0:
        os.write(label, process.exec_label[1].encode())


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
