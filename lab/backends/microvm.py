"""The image as the root file system of a small machine with a kernel of its own."""

from __future__ import annotations

from lab.backends.support.guests.knobs import CONSOLE, DISK, machine
from lab.backends.support.guests.machine import MachineBackend
from lab.backends.support.saving import MACHINE_START
from lab.hypervisor.kinds import MICROVM, MachineType
from lab.instance import Parity

MEMORY_UNDER_TCG = "Memory under TCG: up to 64 MiB more are QEMU's translated code, which doesn't exist under KVM."
VIRTUAL_CPU = "CPU: one virtual CPU is one thread of the host, not a quota: QEMU's other threads run beside it."
OF_A_USER = "QEMU is one of the subordinate ids of the ordinary user who runs lab, in the same jail as root's."
SHARED_DIFFERENCES = (
    "Memory: the limit is the guest's RAM, which holds its kernel too; a cgroup limit holds the application alone.",
    MEMORY_UNDER_TCG,
    VIRTUAL_CPU,
    "Processes: the limit is a cgroup of the guest's own kernel.",
    "Disk: reads and writes go through a virtual disk and are cached twice, by the guest and by the host.",
    "Network: packets pass a virtio card and a tap where the others have a veth pair.",
)
SHARED_OF_LEVEL = {
    (
        "start",
        "restore",
    ): "Start: it goes on from a machine saved while it served, whose making is in no figure.",
    (
        "start",
        "map",
    ): "Start: it goes on from a machine saved while it served, whose making is in no figure. It maps that one's "
    "memory until it writes to it, which is in the host's memory at every start, a cold one too.",
    ("console", "off"): "Console: off, so that a boot's phases before its init can't be told apart.",
    ("console", "verbose"): "Console: the kernel writes all that it logs to the serial port.",
    ("disk", "erofs"): "Disk: the image is an EROFS, uncompressed; what is written is on ext4.",
}


class MicroVm(MachineBackend):
    """QEMU's microvm machine: no PCI, no firmware to wait for, a tiny init."""

    name = "microvm"
    title = "microVM (QEMU)"
    mechanism = "a small virtual machine: its own Linux kernel, booted directly, with the image as its only system"
    order = 45
    rootless = True
    design = MICROVM
    knobs = (machine(MachineType.MICROVM), CONSOLE, DISK, MACHINE_START)
    parity = Parity(
        differences=(
            *SHARED_DIFFERENCES,
            "User space: a few lines of shell mount the image and start the application; nothing else runs.",
        ),
        rootless=(OF_A_USER,),
        of_level=SHARED_OF_LEVEL | {("machine", "q35"): "Machine: QEMU's q35, an ordinary PC, with PCI Express."},
    )
