"""The image as a service of a full operating system in an ordinary PC."""

from __future__ import annotations

from lab.backends.machine import MachineBackend
from lab.backends.microvm import SHARED_DIFFERENCES
from lab.hypervisor.kinds import PC
from lab.instance import Parity


class VirtualMachine(MachineBackend):
    """QEMU's q35 with Debian, whose systemd starts the application."""

    name = "vm"
    title = "virtual machine (QEMU)"
    mechanism = "a virtual PC: its own kernel and a trimmed Debian with systemd, which runs the image as one service"
    order = 50
    design = PC
    parity = Parity(
        differences=(
            *SHARED_DIFFERENCES,
            "User space: systemd, journald, udev and networkd share the guest's memory and CPU with the application.",
            "Debian is trimmed: logins, timers, set-up units and most of udev's coldplug are off; it boots quicker.",
        )
    )
