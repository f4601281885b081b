"""The disks of a machine whose firmware boots from a disk: one with GRUB, the kernel and the initramfs, and one that
says what this very machine is.

The first is made once. The second is written for each machine: an archive with its handover, as it follows the
initramfs in a direct boot, and with GRUB's orders, which name the kernel's command line. GRUB reads the archive as a
file system (its module newc) and hands the disk's sectors to the kernel, behind the shared initramfs.
"""

from __future__ import annotations

from pathlib import Path

from lab.errors import BackendUnavailable
from lab.host.survey.checks import OVMF
from lab.hypervisor.guest import cpio, grub
from lab.hypervisor.guest.handover import Handover
from lab.hypervisor.kinds import Firmware

PACKAGES = {Firmware.SEABIOS: "grub-pc-bin grub-common", Firmware.OVMF: "ovmf grub-efi-amd64-bin grub-common mtools"}

ORDERS = "lab/orders"  # GRUB's, in the second disk's archive
LEAST_DISK_BYTES = 1 << 20  # SeaBIOS passes smaller ones over
ORDERS_BYTES = 4096  # at most, with the archive's entry for them
EFI_BYTES = 4 << 20

# GRUB's last line: the kernel is in memory, the next instruction is the kernel's. The host waits for it.
KERNEL_LINE = b"lab: kernel"

MODULES = ("search", "search_fs_file", "newc", "configfile", "echo")
FIND = f"""\
search --no-floppy --file --set=own /{ORDERS}
source ($own)/{ORDERS}
"""

SCRIPTS = {Firmware.SEABIOS: f"serial --speed=115200\n{FIND}", Firmware.OVMF: FIND}
# A BIOS writes nowhere by itself; a UEFI's console is the serial port already. With linux16 the kernel is entered as
# in a direct boot, in real mode; with linux, in protected mode, its decompression is five times as slow under TCG.
BOOT = {
    Firmware.SEABIOS: """\
linux16 /vmlinuz {command_line}
initrd16 /initramfs ($own)0+{sectors}
terminal_output serial
echo {line}
boot
""",
    Firmware.OVMF: """\
$load_kernel /vmlinuz {command_line}
$load_initrd /initramfs ($own)0+{sectors}
echo {line}
boot
""",
}


def require(firmware: Firmware) -> None:
    """Raises BackendUnavailable when this host lacks what the disk is made with, or the firmware itself."""
    missing = {
        Firmware.DIRECT: False,
        Firmware.SEABIOS: grub.BIOS.missing,
        Firmware.OVMF: grub.UEFI.missing or not OVMF.exists(),
    }
    if missing[firmware]:
        raise BackendUnavailable(
            f"firmware={firmware} can't be had here: it is not installed, or GRUB for it is not",
            hint=f"apt-get install {PACKAGES[firmware]}",
        )


def _names(platform: grub.Platform) -> str:
    """What this GRUB calls the commands, for the orders: they are written later, maybe beside another GRUB."""
    return f"set load_kernel={platform.loader}\nset load_initrd={platform.loader.replace('linux', 'initrd')}\n"


def make_loader_disk(firmware: Firmware, kernel: Path, initramfs: Path, scratch: Path, target: Path) -> None:
    """The disk that every machine with this firmware boots from. ``scratch`` is an empty folder."""
    require(firmware)
    boot_at, efi_at = grub.ALIGNMENT_BYTES, grub.ALIGNMENT_BYTES + grub.BOOT_BYTES
    target.touch(mode=0o644)
    grub.make_boot_partition({"vmlinuz": kernel, "initramfs": initramfs}, scratch, target, offset_bytes=boot_at)
    table = grub.partition_entry(boot_at, grub.BOOT_BYTES, active=True)
    if firmware is Firmware.SEABIOS:
        core = grub.core_image(
            grub.BIOS, SCRIPTS[firmware], scratch, modules=(*MODULES, "linux16", "serial", "terminal")
        )
        record = grub.boot_record(core, table)
    else:
        core = grub.core_image(grub.UEFI, _names(grub.UEFI) + SCRIPTS[firmware], scratch, modules=MODULES)
        with target.open("rb+") as disk:
            disk.truncate(efi_at + EFI_BYTES)
        grub.make_efi_partition(core, scratch, target, offset_bytes=efi_at, size_bytes=EFI_BYTES)
        record = grub.plain_record(table + grub.partition_entry(efi_at, EFI_BYTES, kind=grub.EFI_SYSTEM))
    with target.open("rb+") as disk:
        disk.write(record)


def write_own_disk(handover: Handover, command_line: str, target: Path) -> None:
    """The second disk. What the archive leaves free of it reads as zeros, which the kernel passes over."""
    files = handover.archive()
    sectors = -(-(len(files) + ORDERS_BYTES) // grub.SECTOR_BYTES)
    orders = BOOT[handover.design.firmware].format(
        command_line=command_line, sectors=sectors, line=KERNEL_LINE.decode()
    )
    own = cpio.archive(cpio.with_parents([cpio.file(ORDERS, orders.encode())]))
    assert len(own) <= ORDERS_BYTES
    with target.open("wb") as disk:
        disk.write(own)
        disk.write(files)
        disk.truncate(max(LEAST_DISK_BYTES, sectors * grub.SECTOR_BYTES))
