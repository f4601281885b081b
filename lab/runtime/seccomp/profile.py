"""The system calls that a container may make unless told otherwise: Docker's default, by effect.

Default deny. A system call that is not named fails with EPERM, and one that is newer than all that are named
fails with ENOSYS, so that a C library falls back instead of giving up. Which calls Docker allows is a fact
(moby, profiles/seccomp/default.json, with the fourteen capabilities of `lab.runtime.config.capabilities`); they are
grouped here by what they are for, so that a reader can see what a container may ask of the host's kernel.

`lab.runtime.seccomp.compiler` makes a program of it.
"""

from __future__ import annotations

import errno
import platform
from functools import cache

from lab.runtime.config.model import Seccomp, SeccompArgument, SeccompRule

ALLOWED: dict[str, str] = {
    "files: open, read, write, position": """
        close close_range copy_file_range creat dup dup2 dup3 fadvise64 fadvise64_64 fallocate fcntl fcntl64
        fdatasync flock fsync ftruncate ftruncate64 ioctl _llseek lseek open openat openat2 pipe pipe2 pread64
        preadv preadv2 pwrite64 pwritev pwritev2 read readahead readv sendfile sendfile64 splice sync
        sync_file_range syncfs tee truncate truncate64 vmsplice write writev cachestat""",
    "files: names, metadata, attributes": """
        access chmod chown chown32 faccessat faccessat2 fchmod fchmodat fchmodat2 fchown fchown32 fchownat
        fgetxattr flistxattr fremovexattr fsetxattr fstat fstat64 fstatat64 fstatfs fstatfs64 futimesat getcwd
        getdents getdents64 getxattr lchown lchown32 lgetxattr link linkat listxattr llistxattr lremovexattr
        lsetxattr lstat lstat64 mkdir mkdirat mknod mknodat name_to_handle_at newfstatat readlink readlinkat
        removexattr rename renameat renameat2 rmdir setxattr stat stat64 statfs statfs64 statx symlink symlinkat
        umask unlink unlinkat utime utimensat utimensat_time64 utimes
        getxattrat setxattrat listxattrat removexattrat""",
    "files: watch, lock down": """
        fanotify_mark inotify_add_watch inotify_init inotify_init1 inotify_rm_watch
        landlock_add_rule landlock_create_ruleset landlock_restrict_self""",
    "files: change one's own directory or root": "chdir chroot fchdir",
    "asynchronous input and output": """
        io_cancel io_destroy io_getevents io_pgetevents io_pgetevents_time64 io_setup io_submit""",
    "waiting for many descriptors": """
        epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait epoll_wait_old
        eventfd eventfd2 _newselect poll ppoll ppoll_time64 pselect6 pselect6_time64 select signalfd signalfd4""",
    "memory": """
        brk madvise map_shadow_stack membarrier memfd_create memfd_secret mincore mlock mlock2 mlockall mmap mmap2
        mprotect mremap mseal msync munlock munlockall munmap pkey_alloc pkey_free pkey_mprotect
        process_mrelease remap_file_pages""",
    "processes: start, wait, end": """
        execve execveat exit exit_group fork pidfd_open pidfd_send_signal vfork wait4 waitid waitpid""",
    "processes: who and how one is": """
        arch_prctl capget capset getcpu getegid getegid32 geteuid geteuid32 getgid getgid32 getgroups getgroups32
        getpgid getpgrp getpid getppid getpriority getresgid getresgid32 getresuid getresuid32 getrlimit getrusage
        getsid gettid getuid getuid32 get_thread_area ioprio_get ioprio_set modify_ldt prctl prlimit64 seccomp
        setfsgid setfsgid32 setfsuid setfsuid32 setgid setgid32 setgroups setgroups32 setpgid setpriority setregid
        setregid32 setresgid setresgid32 setresuid setresuid32 setreuid setreuid32 setrlimit setsid set_thread_area
        setuid setuid32 sysinfo times ugetrlimit uname""",
    "processes: look into those of one's own": "process_vm_readv process_vm_writev ptrace",
    "threads": """
        futex futex_requeue futex_time64 futex_wait futex_waitv futex_wake get_robust_list rseq set_robust_list
        set_tid_address""",
    "scheduling": """
        sched_getaffinity sched_getattr sched_getparam sched_get_priority_max sched_get_priority_min
        sched_getscheduler sched_rr_get_interval sched_rr_get_interval_time64 sched_setaffinity sched_setattr
        sched_setparam sched_setscheduler sched_yield""",
    "signals": """
        kill pause restart_syscall rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn
        rt_sigsuspend rt_sigtimedwait rt_sigtimedwait_time64 rt_tgsigqueueinfo sigaltstack sigprocmask sigreturn
        tgkill tkill""",
    "time: read clocks, sleep, timers; setting still needs a capability": """
        adjtimex alarm clock_adjtime clock_adjtime64 clock_getres clock_getres_time64 clock_gettime clock_gettime64
        clock_nanosleep clock_nanosleep_time64 getitimer gettimeofday nanosleep setitimer time timer_create
        timer_delete timer_getoverrun timer_gettime timer_gettime64 timer_settime timer_settime64 timerfd_create
        timerfd_gettime timerfd_gettime64 timerfd_settime timerfd_settime64""",
    "sockets": """
        accept accept4 bind connect getpeername getsockname getsockopt listen recv recvfrom recvmmsg
        recvmmsg_time64 recvmsg send sendmmsg sendmsg sendto setsockopt shutdown socketpair""",
    "System V and POSIX IPC": """
        ipc mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedreceive_time64 mq_timedsend mq_timedsend_time64
        mq_unlink msgctl msgget msgrcv msgsnd semctl semget semop semtimedop semtimedop_time64 shmat shmctl shmdt
        shmget""",
    "randomness": "getrandom",
}

ARM = "arm_fadvise64_64 arm_sync_file_range sync_file_range2 breakpoint cacheflush set_tls"

LISTED_FAMILIES = (*range(13, 19), 21, 22, 24, *range(26, 34), 35, 36, 39, *range(41, 46))
"""Address families besides those below 12, AF_DECnet. Docker's list leaves out what Linux has removed, AF_ALG (38),
the kernel's cryptography, through which CVE-2026-31431 wrote to page caches that all containers share, and AF_VSOCK
(40), a door to the hypervisor that no network namespace closes."""

FIRST_FAMILY_NOT_ALLOWED = 12
NEW_NAMESPACES = 0x7E020000  # CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET
PERSONALITIES = (0x0, 0x0008, 0x20000, 0x20008, 0xFFFFFFFF)  # Linux, Linux32, each with UNAME26, or just ask

ARCHITECTURES = {
    "x86_64": ("SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"),
    "aarch64": ("SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"),
}

ALLOW, REFUSE = "SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO"


@cache
def default_profile(machine: str | None = None) -> Seccomp:
    """Docker's default for ``machine`` (this one's), in the form of the OCI configuration."""
    machine = machine or platform.machine()
    names = {name for group in ALLOWED.values() for name in group.split()}
    if machine == "aarch64":
        names = (names - {"arch_prctl", "modify_ldt"}) | set(ARM.split())
    allowed = SeccompRule(names=tuple(sorted(names)), action=ALLOW)
    return Seccomp(
        default_action=REFUSE,
        default_errno_ret=errno.EPERM,
        architectures=ARCHITECTURES.get(machine, ()),
        syscalls=(allowed, *_filtered()),
    )


def _filtered() -> tuple[SeccompRule, ...]:
    """By argument. The arguments of clone3 are behind a pointer, where a filter can't look: a C library that is
    told ENOSYS uses clone instead. So are those of i386's socketcall, which every program can make: Docker leaves the
    families behind it to AppArmor, which not every host has, so here it is refused as a whole. A program of 32
    bits that is new enough uses the calls that it stands for.

    Several comparisons of one argument are alternatives (see `lab.runtime.seccomp.compiler`), which is runc's
    reading too.
    """
    families = (
        SeccompArgument(index=0, value=FIRST_FAMILY_NOT_ALLOWED, op="SCMP_CMP_LT"),
        *(SeccompArgument(index=0, value=value, op="SCMP_CMP_EQ") for value in LISTED_FAMILIES),
    )
    no_namespace = SeccompArgument(index=0, value=NEW_NAMESPACES, value_two=0, op="SCMP_CMP_MASKED_EQ")
    known = [SeccompArgument(index=0, value=value, op="SCMP_CMP_EQ") for value in PERSONALITIES]
    return (
        SeccompRule(names=("socket",), action=ALLOW, args=families),
        SeccompRule(names=("clone",), action=ALLOW, args=(no_namespace,)),
        *(SeccompRule(names=("personality",), action=ALLOW, args=(value,)) for value in known),
        SeccompRule(names=("clone3", "socketcall"), action=REFUSE, errno_ret=errno.ENOSYS),
    )
