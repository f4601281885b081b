"""What virtual machines are made of: the computer, the user space that runs on it, and how one gets to the other.

Any two of them go together, but for firmware that reads a disk: a microvm has none.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from lab.model import DiskFileSystem


class MachineType(StrEnum):
    """The computer that QEMU emulates (qemu-system-x86_64 -machine help)."""

    MICROVM = "microvm"  # virtio over MMIO, no PCI, no firmware tables beyond ACPI's minimum
    Q35 = "q35"  # PCI Express, an ordinary PC


class UserSpace(StrEnum):
    """What runs above the guest's kernel besides the application. guest/init.sh knows them by these words."""

    IMAGE = "image"  # the image, and a few lines of shell that start it
    DEBIAN = "debian"  # Debian with systemd; the image is one of its services


class Firmware(StrEnum):
    """How the kernel gets into the guest's memory."""

    DIRECT = "direct"  # QEMU puts it there; the machine's own firmware has nothing to look for
    SEABIOS = "seabios"  # a BIOS starts GRUB from a disk, GRUB reads the kernel
    OVMF = "ovmf"  # the same with UEFI (EDK II's build for virtual machines)


class Console(StrEnum):
    """What the kernel writes to the serial port."""

    ON = "on"  # what its early console has to say, then errors
    OFF = "off"  # nothing
    VERBOSE = "verbose"  # all that it logs, as a kernel does that nobody told otherwise


class Devices(StrEnum):
    """The disk and the network card of a machine whose system is somebody else's."""

    VIRTIO = "virtio"  # made for virtual machines; every Linux of today knows them
    PLAIN = "plain"  # an AHCI disk, an e1000e card and a VGA card: what a system without virtio knows


@dataclass(frozen=True, slots=True, kw_only=True)
class Design:
    """How a machine is built, apart from its size and its application."""

    machine: MachineType
    user_space: UserSpace
    firmware: Firmware = Firmware.DIRECT
    console: Console = Console.ON
    disk: DiskFileSystem = DiskFileSystem.EXT4  # of the image; what is written is on ext4 always
    tuned: bool = True  # a Debian without what trim.py lists

    @property
    def boots_from_disk(self) -> bool:
        """The kernel comes from a disk, read by a boot loader, and not from QEMU."""
        return self.firmware is not Firmware.DIRECT


MICROVM = Design(machine=MachineType.MICROVM, user_space=UserSpace.IMAGE)
PC = Design(machine=MachineType.Q35, user_space=UserSpace.DEBIAN)
