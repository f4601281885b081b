"""The image as a service of a full operating system in an ordinary PC."""

from __future__ import annotations

from lab.backends.microvm import OF_A_USER, SHARED_DIFFERENCES, SHARED_OF_LEVEL
from lab.backends.support.guests.knobs import CONSOLE, DISK, FIRMWARE, TUNED, machine
from lab.backends.support.guests.machine import MachineBackend
from lab.backends.support.saving import MACHINE_START
from lab.hypervisor.kinds import PC, MachineType
from lab.instance import Parity

TRIMMED = "Debian is trimmed: logins, timers, set-up units and most of udev's coldplug are off; it boots quicker."


class VirtualMachine(MachineBackend):
    """QEMU's q35 with Debian, whose systemd starts the application."""

    name = "vm"
    title = "virtual machine (QEMU)"
    mechanism = "a virtual PC: its own kernel and a Debian with systemd, which runs the image as one service"
    order = 50
    rootless = True
    design = PC
    knobs = (FIRMWARE, machine(MachineType.Q35), CONSOLE, DISK, TUNED, MACHINE_START)
    parity = Parity(
        differences=(
            *SHARED_DIFFERENCES,
            "User space: systemd, journald, udev and networkd share the guest's memory and CPU with the application.",
        ),
        rootless=(OF_A_USER,),
        of_level=SHARED_OF_LEVEL
        | {
            ("tuned", "yes"): TRIMMED,
            ("machine", "microvm"): "Machine: QEMU's microvm, without PCI or firmware that has anything to find.",
            ("firmware", "seabios"): "Firmware: SeaBIOS starts GRUB from a disk, which reads the kernel.",
            ("firmware", "ovmf"): "Firmware: OVMF (UEFI, no settings kept) starts GRUB, which reads the kernel.",
        },
    )
