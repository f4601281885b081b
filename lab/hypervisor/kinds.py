"""The kinds of virtual machine."""

from __future__ import annotations

from enum import StrEnum


class MachineKind(StrEnum):
    """Two ends of what a virtual machine can be."""

    MICROVM = "microvm"  # QEMU's microvm machine: virtio over MMIO, no PCI, no firmware tables beyond ACPI's minimum
    PC = "pc"  # q35: PCI Express, an ordinary PC
