"""Capabilities by name and number, and the fourteen that Docker leaves to root (capabilities(7))."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

NAMES = (
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
)
"""Index n is capability n (linux/capability.h)."""

DOCKER_DEFAULT = (
    "CAP_AUDIT_WRITE",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_MKNOD",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_RAW",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
)
"""What root in a container keeps: enough to manage its own files, users and ports, nothing of the host's."""


def mask(names: Iterable[str]) -> int:
    """The set as the kernel's bit mask. Raises KeyError for an unknown name."""
    numbers = {name: number for number, name in enumerate(NAMES)}
    return sum(1 << numbers[name] for name in set(names))


def names(bits: int) -> tuple[str, ...]:
    """The other way round; unknown bits are left out."""
    return tuple(name for number, name in enumerate(NAMES) if bits >> number & 1)


_held: list[tuple[str, ...]] = []


def held() -> tuple[str, ...]:
    """The capabilities this process could pass on, found out once: a host may itself be confined."""
    if not _held:
        with open("/proc/self/status") as file:
            sets = dict(line.split(":") for line in file)
        _held.append(names(int(sets["CapPrm"], 16)))
    return _held[0]
