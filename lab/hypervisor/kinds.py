"""What virtual machines are made of: the computer, and the user space that runs on it. Any two go together."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class MachineType(StrEnum):
    """The computer that QEMU emulates (qemu-system-x86_64 -machine help)."""

    MICROVM = "microvm"  # virtio over MMIO, no PCI, no firmware tables beyond ACPI's minimum
    Q35 = "q35"  # PCI Express, an ordinary PC


class UserSpace(StrEnum):
    """What runs above the guest's kernel besides the application. guest/init.sh knows them by these words."""

    IMAGE = "image"  # the image, and a few lines of shell that start it
    DEBIAN = "debian"  # Debian with systemd; the image is one of its services


@dataclass(frozen=True, slots=True, kw_only=True)
class Design:
    """How a machine is built, apart from its size and its application."""

    machine: MachineType
    user_space: UserSpace


MICROVM = Design(machine=MachineType.MICROVM, user_space=UserSpace.IMAGE)
PC = Design(machine=MachineType.Q35, user_space=UserSpace.DEBIAN)
