"""Labels for the kernel's security modules, where the host has one: AppArmor's profile, SELinux' label.

What is set by the process about itself takes effect at its next execve(2). Sources: apparmor(7),
proc_pid_attr(5), the modules' documentation in the kernel's tree.
"""

from __future__ import annotations

import os

from lab.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lab.runtime.config.model import Config, ProcessConfig

APPARMOR_ENABLED = "/sys/module/apparmor/parameters/enabled"
APPARMOR_EXEC = "/proc/self/attr/apparmor/exec"
EXEC = "/proc/self/attr/exec"
SELINUX_MOUNT = "/sys/fs/selinux/enforce"
LABELLED_KINDS = ("tmpfs", "mqueue", "devpts")


def apparmor() -> bool:
    """Whether this host has AppArmor."""
    try:
        with open(APPARMOR_ENABLED) as file:
            return file.read().strip() == "Y"
    except OSError:
        return False


def selinux() -> bool:
    """Whether this host has SELinux."""
    return os.path.exists(SELINUX_MOUNT)


def exec_label(process: ProcessConfig) -> list[str]:
    """The file to write and what to write, or nothing. Raises UsageError where the host lacks the module."""
    if process.apparmor_profile:
        if not apparmor():
            raise UsageError("config.json: process.apparmorProfile: this host has no AppArmor")
        return [APPARMOR_EXEC if os.path.exists(APPARMOR_EXEC) else EXEC, f"exec {process.apparmor_profile}"]
    if process.selinux_label:
        if not selinux():
            raise UsageError("config.json: process.selinuxLabel: this host has no SELinux")
        return [EXEC, process.selinux_label]
    return []


def mount_label(config: Config, kind: str) -> str:
    """The option that labels a new file system of ``kind``, or "". Raises UsageError where there is no SELinux."""
    if not config.linux.mount_label:
        return ""
    if not selinux():
        raise UsageError("config.json: linux.mountLabel: this host has no SELinux")
    return f'context="{config.linux.mount_label}"' if kind in LABELLED_KINDS else ""
