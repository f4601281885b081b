"""What may its root do? Asked so that only the privileged get as far as being wrong."""

from __future__ import annotations

from collections.abc import Sequence

from lab.isolation.base import AS_ROOT, Answer, Context, Found, Mechanism, Privilege, Reply, expect, expectations

NO_CAPABILITY = "Docker's 14 capabilities lack"
STRUCT_TIMEX_SIZE = 208  # adjtimex(2) on a 64-bit kernel
TICK_OF_ZERO = "x:" + "00400000" + "00" * (STRUCT_TIMEX_SIZE - 4)
"""modes = ADJ_TICK, tick = 0: out of range, found out only after CAP_SYS_TIME was asked for."""

HANDLE_OF_NOTHING = "x:" + "08000000" + "01000000" + "ffffffff" * 2
"""struct file_handle: 8 bytes of FILEID_INO32_GEN, the highest inode and generation."""


class MountTmpfs(Privilege):
    """A real mount where it can be made privately, else one of a type that doesn't exist."""

    id = "mount"
    question = "Can it mount a file system?"
    pages = ("mount(2)", "capabilities(7)")
    line = "mount-tmpfs"
    allowed = frozenset({"", "ENODEV"})
    because = f"{NO_CAPABILITY} CAP_SYS_ADMIN, and the filter refuses mount(2)"
    nspawn = AS_ROOT


class LoadModule(Privilege):
    """finit_module(-1): EBADF says that a module from a real file would have been loaded."""

    id = "load-module"
    question = "Can it load code into the kernel?"
    pages = ("finit_module(2)", "capabilities(7)")
    line = "call finit_module -1 s: 0"
    allowed = frozenset({"EBADF"})
    because = f"{NO_CAPABILITY} CAP_SYS_MODULE"
    libkrun = expect(Answer.NO, because="its kernel is built without modules")


class KernelLog(Privilege):
    """syslog(2), SYSLOG_ACTION_SIZE_UNREAD: privileged whatever kernel.dmesg_restrict says, and reads nothing."""

    id = "kernel-log"
    question = "Can it read the kernel's log?"
    pages = ("syslog(2)", "capabilities(7)")
    line = "call syslog 9 0 0"
    allowed = frozenset({""})
    because = f"{NO_CAPABILITY} CAP_SYSLOG"


class SetClock(Privilege):
    """adjtimex(2) with a tick out of range. clock_settime(2) would not do: its kernel half rejects an invalid time
    before it asks for the privilege, so that everybody gets EINVAL.
    """

    id = "set-clock"
    question = "Can it set the clock?"
    pages = ("adjtimex(2)", "capabilities(7)")
    line = f"call adjtimex {TICK_OF_ZERO}"
    allowed = frozenset({"EINVAL"})
    because = f"{NO_CAPABILITY} CAP_SYS_TIME"


class Kexec(Privilege):
    """More segments than KEXEC_SEGMENT_MAX, so that nothing is ever loaded."""

    id = "kexec"
    question = "Can it load another kernel to boot?"
    pages = ("kexec_load(2)", "capabilities(7)")
    line = "call kexec_load 0 65535 0 0"
    allowed = frozenset({"EINVAL"})
    because = f"{NO_CAPABILITY} CAP_SYS_BOOT"
    libkrun = expect(Answer.NO, because="its kernel has no kexec_load(2)")


class Reboot(Privilege):
    """reboot(2) with the magic numbers wrong. In a pid namespace it would end that alone, and not the machine
    (reboot(2), "Behavior inside PID namespaces").
    """

    id = "reboot"
    question = "Can it reboot the machine?"
    pages = ("reboot(2)", "capabilities(7)")
    line = "call reboot 0 0 0 0"
    allowed = frozenset({"EINVAL"})
    because = f"{NO_CAPABILITY} CAP_SYS_BOOT"
    of_namespace = "pid"
    nspawn = expect(Answer.OWN, because="nspawn leaves its root CAP_SYS_BOOT, which ends its pid namespace alone")


class UserNamespace(Privilege):
    """A new user namespace gives all capabilities inside it, and with them a lot of kernel code to reach."""

    id = "user-namespace"
    question = "Can it make a user namespace?"
    pages = ("unshare(2)", "user_namespaces(7)")
    line = "call unshare 0x10000000"  # CLONE_NEWUSER
    allowed = frozenset({""})
    mechanism = Mechanism.SECCOMP
    expected = expectations(
        bare=expect(Answer.NO, because="root may, but not from within a chroot: unshare(2), EPERM"),
        container=expect(Answer.NO, because="the filter refuses unshare(2) without CAP_SYS_ADMIN"),
        own_kernel=expect(
            Answer.GUEST, Answer.NO, because="the guest's own kernel is asked, which refuses it in a chroot too"
        ),
        podman=expect(Answer.YES, because="the filter of podman's distribution allows unshare(2)"),
        bubblewrap=expect(
            Answer.YES, Answer.NO, because="no filter refuses unshare(2): what the host lets anybody do decides"
        ),
        nspawn=expect(
            Answer.YES, Answer.NO, because="its filter allows unshare(2), and what the host lets do decides"
        ),
    )


class UnloadModule(Privilege):
    """delete_module(2) with a name that no module has: ENOENT comes only after CAP_SYS_MODULE was asked for."""

    id = "unload-module"
    question = "Can it take code out of the kernel?"
    line = "call delete_module s:lab-no-such-module 0x800"  # O_NONBLOCK
    allowed = frozenset({"ENOENT"})
    refused = frozenset({"EPERM", "ENOSYS"})
    pages = ("delete_module(2)", "capabilities(7)")
    because = f"{NO_CAPABILITY} CAP_SYS_MODULE, and the filter refuses delete_module(2)"
    libkrun = expect(Answer.NO, because="its kernel is built without modules")


class OpenByHandle(Privilege):
    """open_by_handle_at(2) with the handle of an inode that can't exist: ESTALE comes only after CAP_DAC_READ_SEARCH
    was asked for. (A malformed handle would not do: newer kernels tell everybody EINVAL for that.) With the
    privilege every file of a mounted file system can be opened by its number, whatever directory one is rooted
    in.
    """

    id = "open-by-handle"
    question = "Can it open files by their number, past its root directory?"
    line = f"call open_by_handle_at -100 {HANDLE_OF_NOTHING} 0"  # AT_FDCWD
    allowed = frozenset({"ESTALE"})
    refused = Privilege.refused | {"EOPNOTSUPP"}
    pages = ("open_by_handle_at(2)", "capabilities(7)")
    because = f"{NO_CAPABILITY} CAP_DAC_READ_SEARCH, and the filter refuses open_by_handle_at(2)"


class Swap(Privilege):
    """swapon(2) of a path that can't exist: ENOENT comes only after CAP_SYS_ADMIN was asked for."""

    id = "swap"
    question = "Can it change where the kernel swaps to?"
    line = "call swapon s:/.lab/absent 0"
    allowed = frozenset({"ENOENT"})
    refused = frozenset({"EPERM", "ENOSYS"})
    pages = ("swapon(2)", "capabilities(7)")
    because = f"{NO_CAPABILITY} CAP_SYS_ADMIN, and the filter refuses swapon(2)"
    libkrun = expect(Answer.NO, because="its kernel is built without swap")


class NewMountCalls(Privilege):
    """fsopen(2) of a type that doesn't exist: ENODEV comes only after the privilege to mount was asked for. A filter
    that knows mount(2) alone lets this younger way through.
    """

    id = "mount-by-the-new-calls"
    question = "Can it mount by the kernel's younger calls?"
    line = "call fsopen s:lab-no-such-type 0"
    allowed = frozenset({"ENODEV"})
    pages = ("fsopen(2)", "mount(2)")
    because = f"{NO_CAPABILITY} CAP_SYS_ADMIN, and the filter refuses fsopen(2)"
    nspawn = AS_ROOT


class MountNamespace(Privilege):
    """unshare(CLONE_NEWNS), in a process that ends at once."""

    id = "mount-namespace"
    question = "Can it make a mount namespace?"
    line = "call unshare 0x20000"
    allowed = frozenset({""})
    pages = ("unshare(2)", "mount_namespaces(7)")
    because = f"{NO_CAPABILITY} CAP_SYS_ADMIN, and the filter refuses unshare(2)"
    nspawn = AS_ROOT


class RaisePriority(Privilege):
    """setpriority(2) to a nice value of -1, in a process that ends at once."""

    id = "raise-priority"
    question = "Can it put itself before the host's other processes?"
    line = "call setpriority 0 0 -1"
    allowed = frozenset({""})
    pages = ("setpriority(2)", "sched(7)")
    because = f"{NO_CAPABILITY} CAP_SYS_NICE"
    nspawn = AS_ROOT
    user_space = expect(Answer.GUEST, because="its kernel keeps the number, and schedules nobody by it")


class JoinNamespace(Privilege):
    """setns(2) into the UTS namespace of a process of the host, by its pid, in a process that ends at once."""

    id = "join-namespace"
    question = "Can it enter a namespace of the host's?"
    mechanism = Mechanism.NAMESPACE
    line = "enter"
    allowed = frozenset({""})
    pages = ("setns(2)", "pidfd_open(2)", "namespaces(7)")
    expected = expectations(
        bare=expect(Answer.YES, because="root may enter the namespaces of every process it can name"),
        container=expect(Answer.NO, because="the host's process has no id in the container's pid namespace"),
        own_kernel=expect(Answer.NO, because="the process belongs to another kernel"),
    )

    def lines(self, context: Context) -> Sequence[str]:
        return (f"{self.line} {context.victim_pid}", f"read /proc/{context.victim_pid}/cmdline")

    def judge(self, seen: Sequence[Reply], host: Sequence[Reply], context: Context) -> Found:
        # Inside a pid namespace the same number may belong to somebody else.
        entered = not seen[0]["errno"] and context.victim_token in seen[1]["text"]
        said = seen[0]["name"] or ("succeeded" if entered else "another process's")
        return Found(answer=Answer.YES if entered else Answer.NO, evidence=f"setns to the host's process: {said}")
