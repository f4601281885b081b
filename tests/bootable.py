"""Small disks that boot: GRUB and nothing else, no operating system, but it boots as one does, in a second."""

from __future__ import annotations

import hashlib
import struct
import tempfile
from dataclasses import dataclass
from pathlib import Path

from lab.hypervisor.disks.qcow2 import BACKING_FORMAT, DATA_FILE, EXTERNAL_DATA, FIXED, MAGIC, MORE
from lab.hypervisor.guest import grub

DISK_BYTES = 4 << 20
GREETING = "a line from the disk"
WRITTEN = "all is written"
SPEAK = f"serial --unit=0\nterminal_output serial\nterminal_input serial\necho '{GREETING}'\n"
MODULES = ("serial", "terminal", "echo", "sleep", "halt", "read", "reboot")


def grub_disk(path: Path, script: str = "halt\n", *, platform: grub.Platform = grub.BIOS) -> Path:
    """A raw disk whose GRUB says the greeting on the serial port and goes on with ``script``."""
    with tempfile.TemporaryDirectory() as scratch:
        core = grub.core_image(platform, SPEAK + script, Path(scratch), modules=MODULES)
        with path.open("wb") as disk:
            disk.truncate(DISK_BYTES * (1 if platform is grub.BIOS else 4))
            if platform is grub.BIOS:
                disk.write(grub.boot_record(core, b""))
                return path
            size = 8 << 20
            disk.write(grub.plain_record(grub.partition_entry(1 << 20, size, kind=grub.EFI_SYSTEM)))
        grub.make_efi_partition(core, Path(scratch), path, offset_bytes=1 << 20, size_bytes=size)
    return path


def program_disk(path: Path, program: bytes, options: str) -> Path:
    """A raw disk whose GRUB loads ``program``, which is made like a Linux kernel, and tells it ``options``.

    It lies on the disk without a file system: GRUB takes a list of sectors for a file.
    """
    first, count = 2048, -(-len(program) // 512)
    script = f"serial --unit=0\nterminal_output serial\nlinux (hd0){first}+{count} {options}\nboot\n"
    with tempfile.TemporaryDirectory() as scratch:
        core = grub.core_image(grub.BIOS, script, Path(scratch), modules=("serial", "terminal"))
    with path.open("wb") as disk:
        disk.write(grub.boot_record(core, b""))
        disk.seek(first * 512)
        disk.write(program.ljust(count * 512, b"\0"))
        disk.truncate(max(DISK_BYTES, (first + count) * 512))
    return path


WRITER = (
    "be 34 7c b8 00 43 cd 13 72 08"  # again: mov si, packet; mov ax, 4300h; int 13h; jc done
    "66 83 06 3c 7c 40 eb ee"  # add dword [packet + 8], 64; jmp again
    "be 23 7c ba f8 03"  # done: mov si, text; mov dx, 3f8h
    "ac 84 c0 74 03 ee eb f8 f4 eb fd"  # next: lodsb; test al, al; jz halt; out dx, al; jmp next; halt: hlt; jmp halt
)


def writing_disk(path: Path, size_bytes: int) -> Path:
    """A raw disk whose boot record writes to all of the disk, 32 KiB at a time, until that fails since the disk is at
    its end, and says so on the serial port: by the BIOS's extended writes (int 13h, ah 43h).
    """
    text = f"{WRITTEN}\r\n\0".encode()
    packet = struct.pack("<HHHHQ", 16, 64, 0x8000, 0, 1)  # 64 sectors of what is at 0000:8000, from sector 1 on
    with path.open("wb") as disk:
        disk.write((bytes.fromhex(WRITER) + text + packet).ljust(510, b"\0") + b"\x55\xaa")
        disk.truncate(size_bytes)
    return path


def qcow2_header(
    *,
    size_bytes: int = DISK_BYTES,
    backing: str = "",
    backing_format: str = "",
    data_file: str = "",
    encrypted: int = 0,
) -> bytes:
    """The header of a qcow2 file (version 3) that claims so much, as a stranger may have written it."""
    length = FIXED.size + MORE.size
    extensions = b""
    for kind, text in ((BACKING_FORMAT, backing_format), (DATA_FILE, data_file)):
        if text:
            raw = text.encode()
            extensions += struct.pack(">II", kind, len(raw)) + raw.ljust(-(-len(raw) // 8) * 8, b"\0")
    extensions += struct.pack(">II", 0, 0)
    name_at = length + len(extensions) if backing else 0
    fixed = FIXED.pack(MAGIC, 3, name_at, len(backing), 16, size_bytes, encrypted, 1, 0x30000, 0x10000, 1, 0, 0)
    more = MORE.pack(EXTERNAL_DATA if data_file else 0, 0, 0, 4, length)
    return (fixed + more + extensions + backing.encode()).ljust(1 << 16, b"\0")


@dataclass(frozen=True, slots=True)
class Untouched:
    """A file as it was."""

    path: Path
    digest: bytes
    changed_ns: int
    mode: int

    @classmethod
    def of(cls, path: Path) -> Untouched:
        status = path.stat()
        return cls(path, hashlib.sha256(path.read_bytes()).digest(), status.st_mtime_ns, status.st_mode)

    def check(self) -> None:
        assert Untouched.of(self.path) == self
