"""The steps of `lab.hypervisor.machine`'s story by name, and what is particular of one start."""

from __future__ import annotations

from enum import StrEnum

from lab.host.clock import Remark
from lab.host.units import format_bytes
from lab.hypervisor.domain import MachineSpec, ports
from lab.hypervisor.kinds import MachineType, UserSpace
from lab.hypervisor.parts import MachineRequest
from lab.model import Accelerator


class Boot(StrEnum):
    """Up to LAUNCH by lab; from then on by the guest, as far as the host can see it."""

    PARTS = "write the machine's parts"
    CHANNELS = "listen"
    DOMAIN = "describe the machine"
    LAUNCH = "launch QEMU"
    FIRMWARE = "reach the kernel"
    KERNEL = "boot the kernel"
    USER_SPACE = "bring up user space"


USER_SPACE = {
    UserSpace.IMAGE: "init.sh loads drivers, mounts the image, sets the address and starts the application",
    UserSpace.DEBIAN: "init.sh mounts Debian's disk and executes systemd, whose unit lab-application runs it",
}
FIRMWARE = {MachineType.MICROVM: "QEMU's qboot", MachineType.Q35: "SeaBIOS"}
EXECUTES = {
    Accelerator.KVM: "the host's processor executes the guest's instructions (KVM)",
    Accelerator.TCG: "QEMU translates every instruction of the guest (TCG): times say nothing about KVM",
}


def remarks(request: MachineRequest, spec: MachineSpec) -> dict[str, Remark]:
    """By step, what this very machine gets of it."""
    disks = ", ".join(f"{disk.serial}{' (a layer of its own)' if disk.backing else ''}" for disk in spec.disks)
    channels = ", ".join(port.name.lower() for port in ports(interactive=spec.interactive))
    initramfs = format_bytes(spec.initramfs.stat().st_size)
    found = {
        Boot.PARTS: f"initramfs of {initramfs}; disks: {disks}",
        Boot.CHANNELS: f"the console, and the ports {channels}",
        Boot.DOMAIN: f"{spec.machine}, {format_bytes(spec.memory_bytes)} of RAM, {spec.vcpus} vCPU",
        Boot.LAUNCH: EXECUTES[spec.accelerator],
        Boot.FIRMWARE: FIRMWARE[request.design.machine],
        Boot.USER_SPACE: USER_SPACE[request.design.user_space],
    }
    return {str(step): Remark(text) for step, text in found.items()}
