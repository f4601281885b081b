"""Disks with a Debian on them as people have it: GRUB, its own kernel and initramfs, systemd, an address by DHCP.

Nothing of lab's is on them. A web server says which release it is. They are made by mmdebstrap from the host's own
archives, once, and kept beside the disks of ordinary machines (`machines.disk`).
"""

from __future__ import annotations

import inspect
import json
import shutil
import sys
import tempfile
from pathlib import Path

from machines.debian import LEFT_OUT, MASKED, SMALL_INITRAMFS, VERSIONS, sources
from machines.disk import DISK, folder, in_a_mount_namespace, kept

from lab.host.command import run
from lab.hypervisor.guest import grub
from lab.images.debian import apt
from lab.images.debian.mmdebstrap import mmdebstrap

PORT = 80
ROOT_BYTES = 1 << 30  # half of it is used
PACKAGES = ("linux-image-cloud-amd64", "initramfs-tools", "systemd-sysv", "udev", "busybox-static")
GRUB_SCRIPT = """serial --unit=0
terminal_output serial
linux /vmlinuz root=LABEL=root ro console=ttyS0
initrd /initrd.img
boot
"""
FILES = {
    "etc/fstab": "LABEL=root / ext4 defaults 0 1\n",
    "etc/hostname": "debian\n",
    "etc/machine-id": "",  # made at the first boot: machine-id(5)
    "etc/systemd/network/50-user.network": "[Match]\nName=en*\n\n[Network]\nDHCP=ipv4\n",
    "etc/systemd/system/web.service": "[Service]\nExecStart=/bin/busybox httpd -f -p 80 -h /srv\n",
}


def debian_disk(suite: str, target: Path) -> Path:
    """A raw disk with Debian ``suite`` at ``target``, which anybody may read. Takes minutes at the first time."""
    recipe = json.dumps([inspect.getsource(sys.modules[__name__]), suite, sources(suite), apt.settings()])
    made = kept(folder(f"own-{suite}", recipe), lambda work: _make(suite, work))
    run(["cp", "--sparse=always", "--reflink=auto", made.path, target], timeout_seconds=600)
    target.chmod(0o644)
    return target


def _make(suite: str, work: Path) -> dict[str, str]:
    in_a_mount_namespace("debian_disks", "fill", suite, work)
    shutil.rmtree(work / "tree")
    return {}


def fill(suite: str, work: str) -> None:
    """Write the disk into the folder ``work``, in a mount namespace that ends with this process."""
    whole, place = Path(work) / DISK, Path(work) / "tree"
    place.mkdir()
    run(["mount", "-t", "tmpfs", "-o", "mode=755,size=2G", "tmpfs", place], timeout_seconds=60)
    root, scratch = place / "root", place / "scratch"
    scratch.mkdir()
    options = ["--include=" + ",".join(PACKAGES), f"--essential-hook={SMALL_INITRAMFS}"]
    options += [f"--dpkgopt=path-exclude={pattern}" for pattern in LEFT_OUT]
    options += ["--customize-hook=" + 'chroot "$1" systemctl mask --quiet ' + " ".join(MASKED)]
    mmdebstrap(suite, root, scratch, options, sources(suite))
    for name, text in FILES.items():
        (root / name).write_text(text)
    (root / "srv/index.html").write_text(f"Debian {VERSIONS[suite]}\n")
    wanted = root / "etc/systemd/system/multi-user.target.wants"
    for unit in ("/etc/systemd/system/web.service", "/lib/systemd/system/systemd-networkd.service"):
        (wanted / Path(unit).name).symlink_to(unit)
    boot_at, root_at = grub.ALIGNMENT_BYTES, grub.ALIGNMENT_BYTES + grub.BOOT_BYTES
    whole.touch()
    with tempfile.TemporaryDirectory(dir=place) as parts:
        core = grub.core_image(grub.BIOS, GRUB_SCRIPT, Path(parts), modules=("serial", "terminal"))
        files = {name: root / name for name in ("vmlinuz", "initrd.img")}
        grub.make_boot_partition(files, Path(parts), whole, offset_bytes=boot_at)
    run(
        ["mke2fs", "-q", "-F", "-t", "ext4", "-L", "root", "-E", f"root_owner=0:0,offset={root_at}", "-d", root,
         whole, f"{ROOT_BYTES >> 10}k"],
        timeout_seconds=600,
    )  # fmt: skip
    entries = grub.partition_entry(boot_at, grub.BOOT_BYTES, active=True) + grub.partition_entry(root_at, ROOT_BYTES)
    with whole.open("rb+") as disk:
        disk.truncate(root_at + ROOT_BYTES)
        disk.write(grub.boot_record(core, entries))
