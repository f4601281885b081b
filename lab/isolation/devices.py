"""Which hardware can it reach?"""

from __future__ import annotations

from collections.abc import Sequence

from lab.isolation.base import (
    BOOT_ID,
    Answer,
    Context,
    Group,
    HostValue,
    Inconclusive,
    Mechanism,
    Privilege,
    Severity,
    expect,
    expectations,
)


class BlockDevice(Privilege):
    """Makes a node with the numbers of the host's disk and opens it read-only; nothing is read."""

    id = "block-device"
    question = "Can it open the host's disk?"
    group = Group.DEVICES
    mechanism = Mechanism.CGROUP
    line = "node b"
    allowed = frozenset({""})
    refused = Privilege.refused | {"ENXIO", "ENODEV"}
    expected = expectations(
        bare=expect(Answer.YES, because="root may make and open every device node"),
        container=expect(
            Answer.NO, because="mknod(2) is allowed, but the device cgroup, or a nodev mount, refuses the open"
        ),
        own_kernel=expect(
            Answer.NO, Answer.GUEST, because="these numbers name a disk of the virtual machine, if any"
        ),
    )

    def lines(self, context: Context) -> Sequence[str]:
        if context.disk is None:
            raise Inconclusive("the host has no disk to look for")
        major, minor = context.disk
        return (f"{self.line} {major} {minor}", BOOT_ID)


class PhysicalMemory(Privilege):
    """A node like /dev/mem, opened read-only; nothing is read."""

    id = "physical-memory"
    question = "Can it open physical memory?"
    group = Group.DEVICES
    mechanism = Mechanism.CGROUP
    line = "node c 1 1"
    allowed = frozenset({""})
    refused = Privilege.refused | {"ENXIO", "ENODEV"}
    because = "the device cgroup refuses the open, and Docker's 14 capabilities lack CAP_SYS_RAWIO"


class FirmwareTables(HostValue):
    """The machine's name as the firmware gives it (DMI)."""

    id = "dmi"
    question = "Whose hardware does the firmware's table name?"
    group = Group.DEVICES
    mechanism = Mechanism.NONE
    severity = Severity.LEAK
    path = "/sys/class/dmi/id/product_name"
    expected = expectations(
        bare=expect(Answer.HOST, because="/sys is the host's"),
        container=expect(Answer.HOST, because="/sys is read-only, but shows the host's hardware"),
        own_kernel=expect(
            Answer.OWN, Answer.NO, because="the virtual machine's firmware describes itself, where there is one"
        ),
    )
