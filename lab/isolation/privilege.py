"""What may its root do? Asked so that only the privileged get as far as being wrong."""

from __future__ import annotations

from lab.isolation.base import Answer, Mechanism, Privilege, expect, expectations

NO_CAPABILITY = "Docker's 14 capabilities lack"
STRUCT_TIMEX_SIZE = 208  # adjtimex(2) on a 64-bit kernel
TICK_OF_ZERO = "x:" + "00400000" + "00" * (STRUCT_TIMEX_SIZE - 4)
"""modes = ADJ_TICK, tick = 0: out of range, found out only after CAP_SYS_TIME was asked for."""


class MountTmpfs(Privilege):
    """A real mount where it can be made privately, else one of a type that doesn't exist."""

    id = "mount"
    question = "Can it mount a file system?"
    line = "mount-tmpfs"
    allowed = frozenset({"", "ENODEV"})
    because = f"{NO_CAPABILITY} CAP_SYS_ADMIN, and the filter refuses mount(2)"


class LoadModule(Privilege):
    """finit_module(-1): EBADF says that a module from a real file would have been loaded."""

    id = "load-module"
    question = "Can it load code into the kernel?"
    line = "call finit_module -1 s: 0"
    allowed = frozenset({"EBADF"})
    because = f"{NO_CAPABILITY} CAP_SYS_MODULE"


class KernelLog(Privilege):
    """syslog(2), SYSLOG_ACTION_SIZE_UNREAD: privileged whatever kernel.dmesg_restrict says, and reads nothing."""

    id = "kernel-log"
    question = "Can it read the kernel's log?"
    line = "call syslog 9 0 0"
    allowed = frozenset({""})
    because = f"{NO_CAPABILITY} CAP_SYSLOG"


class SetClock(Privilege):
    """adjtimex(2) with a tick out of range. clock_settime(2) would not do: its kernel half rejects an invalid time
    before it asks for the privilege, so that everybody gets EINVAL.
    """

    id = "set-clock"
    question = "Can it set the clock?"
    line = f"call adjtimex {TICK_OF_ZERO}"
    allowed = frozenset({"EINVAL"})
    because = f"{NO_CAPABILITY} CAP_SYS_TIME"


class Kexec(Privilege):
    """More segments than KEXEC_SEGMENT_MAX, so that nothing is ever loaded."""

    id = "kexec"
    question = "Can it load another kernel to boot?"
    line = "call kexec_load 0 65535 0 0"
    allowed = frozenset({"EINVAL"})
    because = f"{NO_CAPABILITY} CAP_SYS_BOOT"


class Reboot(Privilege):
    """reboot(2) with the magic numbers wrong."""

    id = "reboot"
    question = "Can it reboot the machine?"
    line = "call reboot 0 0 0 0"
    allowed = frozenset({"EINVAL"})
    because = f"{NO_CAPABILITY} CAP_SYS_BOOT"


class UserNamespace(Privilege):
    """A new user namespace gives all capabilities inside it, and with them a lot of kernel code to reach."""

    id = "user-namespace"
    question = "Can it make a user namespace?"
    line = "call unshare 0x10000000"  # CLONE_NEWUSER
    allowed = frozenset({""})
    mechanism = Mechanism.SECCOMP
    expected = expectations(
        bare=expect(Answer.NO, because="root may, but not from within a chroot: unshare(2), EPERM"),
        container=expect(Answer.NO, because="the filter refuses unshare(2) without CAP_SYS_ADMIN"),
        own_kernel=expect(
            Answer.GUEST, Answer.NO, because="the guest's own kernel is asked, which refuses it in a chroot too"
        ),
    )


class CorePattern(Privilege):
    """The classic way out: the host's kernel executes what stands there when a program dumps core."""

    id = "core-pattern"
    question = "Can it open the host's core_pattern for writing?"
    line = "open /proc/sys/kernel/core_pattern write"
    allowed = frozenset({""})
    because = "/proc/sys is mounted read-only"
    mechanism = Mechanism.MASKED


class SysRq(Privilege):
    """One byte there crashes or reboots the machine; here it is opened, and none is written."""

    id = "sysrq"
    question = "Can it open /proc/sysrq-trigger for writing?"
    line = "open /proc/sysrq-trigger write"
    allowed = frozenset({""})
    because = "/proc/sysrq-trigger is mounted read-only"
    mechanism = Mechanism.MASKED
