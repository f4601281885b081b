"""The steps of `lab.hypervisor.machine`'s story by name, and what is particular of one start."""

from __future__ import annotations

from enum import StrEnum

from lab.host.clock import Remark
from lab.host.survey.virtualisation import NESTED, Ground, platform
from lab.host.units import format_bytes
from lab.hypervisor.domains.domain import MachineSpec, ports
from lab.hypervisor.guest.loader import KERNEL_LINE
from lab.hypervisor.kinds import Console, Design, Firmware, MachineType, UserSpace
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
    WAKE = "go on"


USER_SPACE = {
    UserSpace.IMAGE: "init.sh loads drivers, mounts the image, sets the address and starts the application",
    UserSpace.DEBIAN: "init.sh mounts Debian's disk and executes systemd, whose unit lab-application runs it",
}
LOADED = {  # direct: QEMU loaded the kernel, and the machine's own firmware jumps there
    MachineType.MICROVM: "QEMU's qboot",
    MachineType.Q35: "SeaBIOS",
}
BOOTED = {
    Firmware.SEABIOS: "SeaBIOS finds the devices and starts GRUB from disk; GRUB reads the kernel and writes a line.",
    Firmware.OVMF: "OVMF brings up UEFI and starts GRUB from disk; GRUB reads the kernel and writes a line.",
}
SILENT = "Its console is off: when the firmware was done can't be seen from outside."
EXECUTES = {
    Accelerator.KVM: "the host's processor executes the guest's instructions (KVM)",
    Accelerator.TCG: "QEMU translates every instruction of the guest (TCG): times say nothing about KVM",
}


def remarks(request: MachineRequest, spec: MachineSpec) -> dict[str, Remark]:
    """By step, what this very machine gets of it."""
    disks = ", ".join(f"{disk.serial}{' (a layer of its own)' if disk.backing else ''}" for disk in spec.disks)
    channels = ", ".join(port.name.lower() for port in ports(interactive=spec.interactive))
    found = {
        Boot.PARTS: f"{_saved(request)}{_initramfs(spec)}disks: {disks}",
        Boot.CHANNELS: f"the console, and the ports {channels}",
        Boot.DOMAIN: f"{spec.machine}, {format_bytes(spec.memory_bytes)} of RAM, {spec.vcpus} vCPU",
        Boot.LAUNCH: _executes(spec.accelerator),
        Boot.USER_SPACE: USER_SPACE[request.design.user_space],
    }
    return {str(step): Remark(text) for step, text in found.items()} | _firmware(request.design)


def _executes(accelerator: Accelerator) -> str:
    nested = accelerator is Accelerator.KVM and platform().ground is Ground.EMULATED
    return f"{EXECUTES[accelerator]}. {NESTED}" if nested else EXECUTES[accelerator]


def _saved(request: MachineRequest) -> str:
    size = request.snapshot.size_bytes if request.snapshot else 0
    return (
        f"it goes on from a machine that was saved: {format_bytes(size)} of RAM, devices and disks. " if size else ""
    )


def kernel_sign(design: Design) -> bytes | None:
    """What the console shows when the kernel starts: see `Channels`.

    A machine's own firmware and the kernel's setup code that it jumps to print nothing that is not the kernel's. UEFI
    does, so there it is the boot loader's last line, and with a BIOS that has one it is the same.
    """
    if design.boots_from_disk:
        return KERNEL_LINE
    return None if design.console is Console.OFF else b""


def _initramfs(spec: MachineSpec) -> str:
    return f"initramfs of {format_bytes(spec.direct.initramfs.stat().st_size)}; " if spec.direct else ""


def _firmware(design: Design) -> dict[str, Remark]:
    if design.boots_from_disk:
        return {Boot.FIRMWARE: Remark(BOOTED[design.firmware], instead=True, page="grub-mkimage(1)")}
    remarks = {str(Boot.FIRMWARE): Remark(LOADED[design.machine])}
    if design.console is Console.OFF:
        remarks[Boot.KERNEL] = Remark(SILENT)
    return remarks
