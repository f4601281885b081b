"""What is left out of the guest's Debian, each with its reason: a server in a virtual machine has no use for it.

It is a Debian that systemd boots, with journald, udev and networkd, but no longer one as installed: its boot is
shorter for what is missing, and reports say so. What protects a system or decides how fast an application runs is
left as Debian has it: the kernel's mitigations and settings, its audit, and the sandboxes of systemd's own services.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

NOWHERE = "/dev/null"  # a unit, generator or rule that points there is off: systemd.unit(5), udev(7)

UNITS: Mapping[str, Sequence[str]] = MappingProxyType({
    "it would wake up at random in the middle of a measurement": (
        "apt-daily.timer",
        "apt-daily-upgrade.timer",
        "dpkg-db-backup.timer",
        "e2scrub_all.timer",
        "e2scrub_reap.service",
        "fstrim.timer",
        "motd-news.timer",
        "systemd-tmpfiles-clean.timer",
    ),
    "nobody logs in, neither at a console nor over the network": (
        "getty.target",
        "systemd-ask-password-console.path",
        "systemd-ask-password-wall.path",
        "systemd-logind.service",
        "systemd-update-utmp.service",
        "systemd-update-utmp-runlevel.service",
        "systemd-user-sessions.service",
    ),
    "the disk is as new at every boot: nothing to set up, to keep for the next one, or to repair after the last": (
        "systemd-firstboot.service",
        "systemd-journal-flush.service",
        "systemd-machine-id-commit.service",
        "systemd-pstore.service",
        "systemd-random-seed.service",
        "systemd-repart.service",
        "systemd-sysusers.service",
        "systemd-tmpfiles-setup.service",
    ),
    "a file system that no program on this machine looks into, and the kernel's modules for it": (
        "dev-hugepages.mount",
        "dev-mqueue.mount",
        "modprobe@.service",
        "proc-sys-fs-binfmt_misc.automount",
        "sys-fs-fuse-connections.mount",
        "sys-kernel-config.mount",
        "sys-kernel-debug.mount",
        "sys-kernel-tracing.mount",
        "systemd-binfmt.service",
    ),
    "no modules are listed to be loaded at boot, and no device has to exist before its driver does": (
        "kmod-static-nodes.service",
        "systemd-modules-load.service",
        "systemd-tmpfiles-setup-dev.service",
    ),
})  # fmt: skip

# Programs that write units at every boot: for encrypted disks, partitions, hibernation, logins and scripts of
# System V's init, none of which this machine has. The kernel's command line names no unit to run either.
GENERATORS = (
    "systemd-cryptsetup-generator",
    "systemd-debug-generator",
    "systemd-fstab-generator",
    "systemd-getty-generator",
    "systemd-gpt-auto-generator",
    "systemd-hibernate-resume-generator",
    "systemd-integritysetup-generator",
    "systemd-rc-local-generator",
    "systemd-run-generator",
    "systemd-system-update-generator",
    "systemd-sysv-generator",
    "systemd-veritysetup-generator",
)

# At boot udev would ask every device for its name, its driver and its links: two hundred consoles, memory blocks and
# bus bridges among them. The network cards and their drivers are what is wanted; the initramfs had to find the disks.
COLDPLUG = """\
[Service]
ExecStart=
ExecStart=-udevadm trigger --type=devices --action=add --subsystem-match=virtio --subsystem-match=net
"""

# The journal goes with the machine. Kept in memory, it takes no part in what the application's disk is measured by.
JOURNAL = """\
[Journal]
Storage=volatile
"""


def trim(tree: Path) -> None:
    """Take it out of a Debian in ``tree``."""
    system = tree / "etc/systemd/system"
    for names in UNITS.values():
        for name in names:
            _mask(system / name)
    for name in GENERATORS:
        _mask(tree / "etc/systemd/system-generators" / name)
    _link(system / "default.target", "/lib/systemd/system/multi-user.target")  # Debian's has a desktop in mind
    _write(system / "systemd-udev-trigger.service.d/lab.conf", COLDPLUG)
    _write(tree / "etc/systemd/journald.conf.d/lab.conf", JOURNAL)
    (tree / "etc/fstab").unlink(missing_ok=True)  # the initramfs mounts the root file system, and that is all


def _mask(path: Path) -> None:
    _link(path, NOWHERE)


def _link(path: Path, target: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    path.symlink_to(target)


def _write(path: Path, content: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
