"""Disks that firmware boots from: a partition table, GRUB where a BIOS or a UEFI looks for it, a partition it reads.

A BIOS executes the boot record's code, which loads GRUB from the sectors right behind it. UEFI firmware executes the
file EFI/BOOT/BOOTX64.EFI of a FAT partition (UEFI specification 2.10, sections 3.5.1.1 and 13.3.3; a table in the
master boot record will do: 5.2.1). Out of scope: what GRUB shall load then.
"""

from __future__ import annotations

import shutil
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lab.errors import CommandError, LabError, UsageError
from lab.host.command import run
from lab.host.survey.checks import GRUB
from lab.host.survey.virtualisation import platform

SECTOR_BYTES = 512
ALIGNMENT_BYTES = 1 << 20
BOOT_BYTES = 48 << 20
CODE_BYTES = 440  # of the master boot record; a signature, the partition table and 55 AA follow
TABLE_OFFSET = 446
LINUX, EFI_SYSTEM, ACTIVE = 0x83, 0xEF, 0x80
MAKE_SECONDS = 600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Platform:
    """A firmware that GRUB runs on. ``modules`` are those that it needs there to read the boot partition, ``linux``
    those that load a kernel: the first that this GRUB has is taken.
    """

    name: str
    modules: tuple[str, ...]
    linux: tuple[str, ...]
    package: str

    @property
    def directory(self) -> Path:
        return GRUB / self.name

    @property
    def loader(self) -> str:
        """The module, and the command of that name, which loads a kernel."""
        has = (name for name in self.linux if (self.directory / f"{name}.mod").exists())
        return next(has, self.linux[-1])

    @property
    def missing(self) -> bool:
        return not self.directory.exists()


BIOS = Platform(name="i386-pc", modules=("biosdisk", "part_msdos", "ext2"), linux=("linux",), package="grub-pc-bin")
UEFI = Platform(  # Debian's GRUB 2.06 has both, and 2.12 one that does what linuxefi did
    name="x86_64-efi",
    modules=("part_msdos", "ext2", "fat"),
    linux=("linuxefi", "linux"),
    package="grub-efi-amd64-bin",
)


def core_image(platform: Platform, script: str, scratch: Path, *, modules: Sequence[str] = ()) -> bytes:
    """GRUB with what it needs to read the first partition, and what to do then. Raises CommandError without GRUB."""
    hint = f"apt-get install {platform.package} grub-common"
    if platform.missing:
        raise CommandError(f"GRUB for {platform.name} is not installed", hint=hint)
    config, core = scratch / "grub.cfg", scratch / "core.img"
    config.write_text(script)
    run(
        ["grub-mkimage", "-O", platform.name, "-d", platform.directory, "-c", config, "-p", "(,msdos1)/", "-o", core,
         *platform.modules, platform.loader, *modules],
        timeout_seconds=60, hint=hint,
    )  # fmt: skip
    return core.read_bytes()


def boot_record(core: bytes, table: bytes) -> bytes:
    """What a disk for a BIOS begins with: the record, and GRUB behind it, up to the first partition.

    grub-mkimage writes an image that expects to lie at sector 1, right behind the boot record, which reads it there.
    """
    if SECTOR_BYTES + len(core) > ALIGNMENT_BYTES:
        raise LabError("GRUB does not fit before the first partition", hint="report it: lab doctor --report FILE")
    return _record(table, (BIOS.directory / "boot.img").read_bytes()[:CODE_BYTES]) + core


def plain_record(table: bytes) -> bytes:
    """A partition table, with no code for a BIOS."""
    return _record(table, b"")


def _record(table: bytes, code: bytes) -> bytes:
    return code.ljust(TABLE_OFFSET, b"\0") + table.ljust(64, b"\0") + b"\x55\xaa"


def partition_entry(start_bytes: int, size_bytes: int, *, active: bool = False, kind: int = LINUX) -> bytes:
    """One entry of a master boot record's table; its cylinders refer to its sectors. Raises UsageError."""
    start, count = start_bytes // SECTOR_BYTES, -(-size_bytes // SECTOR_BYTES)
    if start + count >= 1 << 32:
        raise UsageError("the disk is too large for a BIOS", hint="at most 2 TiB")
    nowhere = b"\xfe\xff\xff"
    return struct.pack("<B3sB3sII", ACTIVE if active else 0, nowhere, kind, nowhere, start, count)


def make_boot_partition(files: Mapping[str, Path | bytes], scratch: Path, disk: Path, *, offset_bytes: int) -> None:
    """``BOOT_BYTES`` of ext2 with ``files``, by name: what GRUB reads."""
    staging = scratch / "boot"
    staging.mkdir()
    for name, content in files.items():
        if isinstance(content, bytes):
            (staging / name).write_bytes(content)
        else:
            shutil.copyfile(content, staging / name)
    extended = f"root_owner=0:0,offset={offset_bytes}"
    run(
        ["mke2fs", "-q", "-F", "-t", "ext2", "-L", "boot", "-m", "0", "-E", extended, "-d", staging, disk,
         f"{BOOT_BYTES >> 10}k"],
        timeout_seconds=platform().patience * MAKE_SECONDS,
    )  # fmt: skip


def make_efi_partition(core: bytes, scratch: Path, disk: Path, *, offset_bytes: int, size_bytes: int) -> None:
    """An EFI system partition with GRUB as the program that is started when nobody chose another."""
    program = scratch / "BOOTX64.EFI"
    program.write_bytes(core)
    place = f"{disk}@@{offset_bytes}"
    commands: list[list[str | Path]] = [
        ["mformat", "-i", place, "-T", str(size_bytes // SECTOR_BYTES), "-h", "16", "-s", "32", "::"],
        ["mmd", "-i", place, "::/EFI", "::/EFI/BOOT"],
        ["mcopy", "-i", place, program, "::/EFI/BOOT/BOOTX64.EFI"],
    ]
    for words in commands:
        run(words, timeout_seconds=60, environment={"MTOOLS_SKIP_CHECK": "1"}, hint="apt-get install mtools")
