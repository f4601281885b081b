"""The knobs of virtual machines: what an experiment may vary of a `Design`. Each backend offers some of them.

Out of scope: what a level comes to, which `lab.hypervisor` knows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from lab.errors import UsageError
from lab.hypervisor.kinds import Console, Design, Firmware, MachineType
from lab.instance import Knob
from lab.model import DiskFileSystem

YES, NO = "yes", "no"

FIRMWARE = Knob(
    name="firmware",
    levels=tuple(Firmware),
    tells="what of a boot is firmware and boot loader: none, a BIOS with GRUB, or UEFI with GRUB",
)
CONSOLE = Knob(
    name="console",
    levels=tuple(Console),
    tells="what the kernel's messages on a serial port cost: for each byte the guest leaves to QEMU",
)
DISK = Knob(
    name="disk",
    levels=tuple(DiskFileSystem),
    tells="what the image's file system costs: one for everything, or one made to be read only",
)
TUNED = Knob(
    name="tuned",
    levels=(YES, NO),
    tells="what a Debian does at boot that a machine with one service has no use for",
)


def machine(first: MachineType) -> Knob:
    """The computer below the same user space, ``first`` being the backend's own."""
    others = (one for one in MachineType if one is not first)
    return Knob(
        name="machine",
        levels=(first, *others),
        tells="what of the difference between microvm and vm is the machine's, and what its user space's",
    )


def designed(design: Design, levels: Mapping[str, str]) -> Design:
    """``design`` at ``levels``, which exist. Raises UsageError for two that don't go together."""
    found = replace(
        design,
        machine=MachineType(levels.get("machine", design.machine)),
        firmware=Firmware(levels.get("firmware", design.firmware)),
        console=Console(levels.get("console", design.console)),
        disk=DiskFileSystem(levels.get("disk", design.disk)),
        tuned=levels.get("tuned", YES) == YES,
    )
    if found.boots_from_disk and found.machine is MachineType.MICROVM:
        raise UsageError(
            f"firmware={found.firmware} and machine=microvm don't go together: its firmware can read no disk",
            hint="machine=q35, or firmware=direct",
        )
    return found
