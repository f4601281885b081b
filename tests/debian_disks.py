"""Disks with a whole Debian, as somebody may have installed it: GRUB, Debian's kernel, systemd, a page on port 8000.

Each is made once, natively, by mmdebstrap, and kept beside the disks of tests/machines. lab's own guests are made of
other parts; what this has in common with them is GRUB's way onto a disk.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

from machines.debian import sources
from machines.disk import DISK, folder, kept

from lab.host.command import run
from lab.hypervisor.guest import grub
from lab.images.debian import apt
from lab.images.debian.mmdebstrap import mmdebstrap

PORT = 8000
ROOT_BYTES = 2 << 30
BOOT_MODULES = ("virtio_pci", "virtio_blk", "ext4", "ahci", "sd_mod")
PACKAGES = (
    "linux-image-amd64", "initramfs-tools", "systemd", "systemd-sysv", "dbus", "udev", "kmod", "busybox-static",
)  # fmt: skip
LEFT_OUT = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*", "/usr/share/info/*")
GRUB_SCRIPT = "linux /vmlinuz root=LABEL=root rw console=ttyS0\ninitrd /initrd.img\nboot\n"
FILES = {
    "etc/fstab": "LABEL=root / ext4 defaults 0 1\n",
    "etc/hostname": "own\n",
    "etc/machine-id": "",  # made at the first boot, as in an image that is given away: machine-id(5)
    "etc/systemd/network/50-own.network": "[Match]\nName=en* eth*\n\n[Network]\nDHCP=ipv4\n",
    "etc/systemd/system/page.service": f"[Service]\nExecStart=/bin/busybox httpd -f -p {PORT} -h /srv\n"
    "[Install]\nWantedBy=multi-user.target\n",
}
HOOK = """
mkdir -p "$1/etc/initramfs-tools/conf.d"
echo MODULES=list > "$1/etc/initramfs-tools/conf.d/own"
printf '%s\\n' MODULES > "$1/etc/initramfs-tools/modules"
""".replace("MODULES >", f"{' '.join(BOOT_MODULES)} >")
ENABLE = 'chroot "$1" systemctl enable --quiet systemd-networkd page && touch "$1/etc/.updated" "$1/var/.updated"'
SECONDS = 900.0


def debian_disk(suite: str) -> Path:
    """A raw disk with that Debian, which says its release on its page; it takes minutes to make. Needs root."""
    recipe = json.dumps([Path(__file__).read_text(), suite, sources(suite), apt.settings()])
    path = kept(folder(f"own-{suite}", recipe), lambda work: _make(suite, work)).path
    path.chmod(0o444)
    return path


def _make(suite: str, work: Path) -> dict[str, str]:
    tree, scratch, disk = work / "tree", work / "scratch", work / DISK
    scratch.mkdir()
    options = ["--include=" + ",".join(PACKAGES), "--dpkgopt=force-unsafe-io", f"--essential-hook={HOOK}"]
    options += [f"--dpkgopt=path-exclude={pattern}" for pattern in LEFT_OUT]
    for name, text in {**FILES, "srv/index.html": f"a page of Debian {suite}\n"}.items():
        (scratch / name).parent.mkdir(parents=True, exist_ok=True)
        (scratch / name).write_text(text)
        options.append(f'--customize-hook=mkdir -p "$1/{Path(name).parent}" && cp {scratch / name} "$1/{name}"')
    mmdebstrap(suite, tree, scratch, [*options, f"--customize-hook={ENABLE}"], sources(suite))
    boot_at, root_at = grub.ALIGNMENT_BYTES, grub.ALIGNMENT_BYTES + grub.BOOT_BYTES
    with disk.open("wb") as file:
        file.truncate(root_at + ROOT_BYTES)
    kernel = {"vmlinuz": tree / "vmlinuz", "initrd.img": tree / "initrd.img"}
    (scratch / "grub").mkdir()
    grub.make_boot_partition(kernel, scratch / "grub", disk, offset_bytes=boot_at)
    run(
        ["mke2fs", "-q", "-F", "-t", "ext4", "-L", "root", "-E", f"root_owner=0:0,offset={root_at}", "-d", tree, disk,
         f"{ROOT_BYTES >> 10}k"],
        timeout_seconds=SECONDS,
    )  # fmt: skip
    table = grub.partition_entry(boot_at, grub.BOOT_BYTES, active=True) + grub.partition_entry(root_at, ROOT_BYTES)
    with disk.open("rb+") as file:
        file.write(grub.boot_record(grub.core_image(grub.BIOS, GRUB_SCRIPT, scratch), table))
    for path in (tree, scratch):
        shutil.rmtree(path)
    os.sync()
    return {}


if __name__ == "__main__":
    import sys

    for wanted in sys.argv[1:]:
        sys.stdout.write(f"{debian_disk(wanted)}\n")
