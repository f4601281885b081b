"""What this host's security modules and settings keep lab, or the applications in it, from doing, and the remedy.

Each is found by trying where that harms nothing. Sources: apparmor(7), Documentation/admin-guide/LSM/Yama.rst,
kernel_lockdown(7), Documentation/networking/ipv6.rst.
"""

from __future__ import annotations

import socket
from pathlib import Path

from lab.host.survey.facts import chosen
from lab.model import Check

ROOT = Path("/")
UNCONFINED = "unconfined"
NO_TRACING = "3"
LOCKED = {
    "integrity": "/dev/mem, I/O ports, kexec and modules without a signature are closed to root too: the isolation "
    "probes that ask for them are inconclusive",
    "confidentiality": "tracefs is closed to root too: lab isolation surface counts no system calls of the host, and "
    "the isolation probes of /dev/mem, I/O ports, kexec and /proc/kcore are inconclusive",
}
USER_NAMESPACE_SETTINGS = (  # file below /proc/sys, the value that forbids, one that allows
    ("kernel/apparmor_restrict_unprivileged_userns", "1", "0"),
    ("kernel/unprivileged_userns_clone", "0", "1"),
    ("user/max_user_namespaces", "0", "15000"),
)


def restriction_checks(root: Path = ROOT) -> list[Check]:
    """One check for each of them; none is required by a backend. Files are looked up below ``root``."""
    return [apparmor(root), unprivileged(root), yama(root), lockdown(root), ipv6(root)]


def apparmor(root: Path = ROOT) -> Check:
    """Whether lab itself runs under a profile: what it may is the profile's then, root or not."""
    if _read(root / "sys/module/apparmor/parameters/enabled") != "Y":
        return Check(name="AppArmor", ok=True, found="not active")
    label = _read(root / "proc/self/attr/apparmor/current") or _read(root / "proc/self/attr/current")
    free = label in ("", UNCONFINED) or not label.endswith("(enforce)")
    return Check(
        name="AppArmor",
        ok=free,
        found=f"active, lab is {label.partition(' ')[0] or UNCONFINED}"
        if free
        else f"lab runs under the profile {label}, which may refuse mounts and namespaces to root",
        remedy="start lab unconfined: aa-exec -p unconfined; in Docker: --security-opt apparmor=unconfined",
    )


def unprivileged(root: Path = ROOT) -> Check:
    """Whether ordinary users may make user namespaces. lab's own are made by root; applications may want some."""
    settings, remedy = forbidding_user_namespaces(root)
    if not settings:
        return Check(name="unprivileged user namespaces", ok=True, found="may be made")
    return Check(
        name="unprivileged user namespaces",
        ok=False,
        found=f"refused ({settings}): an application that makes some, as a browser's sandbox does, fails on the bare "
        "process and works in virtual machines",
        remedy=remedy,
    )


def forbidding_user_namespaces(root: Path = ROOT) -> tuple[str, str]:
    """The settings that keep ordinary users from user namespaces, with their values, and what root would type to
    allow them; both are empty where there is none.
    """
    found = [
        (name.replace("/", "."), value, allows)
        for name, value, allows in USER_NAMESPACE_SETTINGS
        if _read(root / "proc/sys" / name) == value
    ]
    settings = ", ".join(f"{name} = {value}" for name, value, _ in found)
    return settings, " ".join(["sysctl -w", *(f"{name}={allows}" for name, _, allows in found)]) if found else ""


def yama(root: Path = ROOT) -> Check:
    """kernel.yama.ptrace_scope: 1 and 2 leave root everything, 3 leaves nobody anything until the next boot."""
    scope = _read(root / "proc/sys/kernel/yama/ptrace_scope")
    if scope != NO_TRACING:
        return Check(name="Yama", ok=True, found=f"ptrace_scope {scope}: root may trace" if scope else "not active")
    return Check(
        name="Yama",
        ok=False,
        found="ptrace_scope 3: nobody may trace. Containers can't be saved (start=restore), filters of system calls "
        "can't be read back (lab isolation surface), and the probe trace-host-process is inconclusive",
        remedy="remove kernel.yama.ptrace_scope = 3 from /etc/sysctl.d and boot again: it can't be lowered before",
    )


def lockdown(root: Path = ROOT) -> Check:
    """What the kernel keeps from root: none of it is needed to compare."""
    level = chosen(_read(root / "sys/kernel/security/lockdown"))
    if level not in LOCKED:
        return Check(name="lockdown", ok=True, found=level or "not active")
    return Check(
        name="lockdown",
        ok=False,
        found=f"{level}: {LOCKED[level]}",
        remedy="boot without lockdown= on the kernel's command line, and where Secure Boot sets it without that",
    )


def ipv6(root: Path = ROOT) -> Check:
    """Whether sockets of that family can be made; lab itself uses none."""
    if _has_ipv6():
        off = _read(root / "proc/sys/net/ipv6/conf/all/disable_ipv6") == "1"
        return Check(name="IPv6", ok=True, found="no addresses; sockets can be made" if off else "on; lab uses none")
    return Check(
        name="IPv6",
        ok=False,
        found="not in this kernel's service: an application that listens on [::] alone fails on the host's kernel, "
        "and works in virtual machines",
        remedy="boot without ipv6.disable=1, or have the application listen on 0.0.0.0",
    )


def _has_ipv6() -> bool:
    try:
        socket.socket(socket.AF_INET6, socket.SOCK_STREAM).close()
    except OSError:
        return False
    return True


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8", "replace").strip().strip("\0")
    except OSError:
        return ""
