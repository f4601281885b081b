"""What a process may do, taken away or bounded before it executes foreign code (capabilities(7), getrlimit(2))."""

from __future__ import annotations

import errno
import os
import resource

from lab.host import syscalls
from lab.host.identity import ownspace
from lab.shims import signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from lab.runtime.plan import ProcessPlan

MOST_PROCESSORS = 8192  # CONFIG_NR_CPUS
ADMIN = 1 << 21  # CAP_SYS_ADMIN

with open("/proc/sys/kernel/cap_last_cap") as _file:
    LAST_CAPABILITY = int(_file.read())


def set_limits(process: ProcessPlan) -> None:
    """rlimits, and what else is the process's own and needs privileges: scheduling, personality."""
    for number, soft, hard in process.rlimits:
        _set_rlimit(number, soft, hard)
    if process.scheduler is not None:
        syscalls.sched_setattr(**process.scheduler)
    if process.io_priority is not None:
        syscalls.ioprio_set(*process.io_priority)
    if process.persona is not None:
        syscalls.personality(process.persona)
    if process.memory_policy is not None:
        try:
            syscalls.set_mempolicy(*process.memory_policy)
        except OSError as error:
            raise OSError(error.errno, os.strerror(error.errno or 0), "linux.memoryPolicy") from error
    if process.affinity is not None:
        os.sched_setaffinity(0, process.affinity[1] or range(MOST_PROCESSORS))
    if process.mergeable:
        syscalls.prctl(syscalls.PR_SET_MEMORY_MERGE, 1)  # stays over fork(2), and since Linux 6.7 over execve(2)


def _set_rlimit(number: int, soft: int, hard: int) -> None:
    """setrlimit(2). Python tells of a failure without the errno, and nobody which limit it was: raises OSError."""
    try:
        resource.setrlimit(number, (soft, hard))
    except (ValueError, OverflowError, OSError) as error:
        reason = errno.EPERM if "not allowed" in f"{error}" else getattr(error, "errno", None) or errno.EINVAL
        found = [name for name in dir(resource) if name.startswith("RLIMIT_") and getattr(resource, name) == number]
        name = (found or ["RLIMIT_LOCKS"])[0]  # which Python leaves out
        raise OSError(reason, f"{os.strerror(reason)}: soft {soft}, hard {hard}", name) from error


def leave_keyring(process: ProcessPlan) -> None:
    """The session keyring is inherited (session-keyring(7)), with the keys of whoever has started lab.

    A new one has no name: one that has could have been made before, by anybody, for us to join.
    """
    if process.own_keyring:
        try:
            syscalls.join_session_keyring()
        except OSError as error:
            if error.errno not in (errno.ENOSYS, errno.EPERM):  # nobody here may use keyrings, then
                raise


def keeps_admin(process: ProcessPlan) -> bool:
    """Whether CAP_SYS_ADMIN is needed after the others have gone: to install a filter without no_new_privs."""
    needs = process.seccomp or process.filter_follows or process.read_only_by_landlock
    return not process.no_new_privileges and bool(needs)


def drop_privileges(process: ProcessPlan) -> None:
    """Bounding set, then ids, then the other sets: each needs what the next one takes (capabilities(7)).

    All but CAP_SYS_ADMIN, if `keeps_admin` says so: `give_back_admin` is the end of that.
    """
    kept = ADMIN if keeps_admin(process) else 0
    for number in range(LAST_CAPABILITY + 1):
        if not process.bounding >> number & 1:
            syscalls.prctl(syscalls.PR_CAPBSET_DROP, number)
    syscalls.prctl(syscalls.PR_SET_KEEPCAPS, 1)
    os.umask(process.umask)
    if process.groups or not ownspace.keeps_groups():
        os.setgroups(process.groups)
    os.setresgid(process.gid, process.gid, process.gid)
    os.setresuid(process.uid, process.uid, process.uid)
    syscalls.capset(
        effective=process.effective | kept, permitted=process.permitted | kept, inheritable=process.inheritable
    )
    syscalls.prctl(syscalls.PR_CAP_AMBIENT, syscalls.PR_CAP_AMBIENT_CLEAR_ALL)
    for number in range(LAST_CAPABILITY + 1):
        if process.ambient >> number & 1:
            syscalls.prctl(syscalls.PR_CAP_AMBIENT, syscalls.PR_CAP_AMBIENT_RAISE, number)


def give_back_admin(process: ProcessPlan) -> Callable[[], None]:
    """What leaves the process with its own sets, in one system call."""
    if process.effective & process.permitted & ADMIN:
        return lambda: None
    return syscalls.prepared_capset(
        effective=process.effective, permitted=process.permitted, inheritable=process.inheritable
    )


def restore_signals() -> None:
    """What Python and the launcher changed; ignored signals would survive execve(2)."""
    for number in (signal.SIGPIPE, signal.SIGINT, signal.SIGHUP, signal.SIGTERM, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
