"""Disks made once from the guest's Debian: its system disk, and empty writable layers.

A machine never writes to them: the system disk and the scratch disk are backing files of a machine's own
qcow2 layer, copied from an empty template since that is quicker than qemu-img.
"""

from __future__ import annotations

from pathlib import Path

from lab.host.command import run
from lab.host.survey.virtualisation import platform
from lab.hypervisor.guest.trim import trim

FREE_BYTES = 8 << 30  # apparent, not allocated: what an application may write
MAKE_TIMEOUT_SECONDS = 300.0

ENABLED = ("systemd-networkd.service",)


def customise(tree: Path, *, tuned: bool) -> None:
    """Make a bootstrapped Debian a guest: networkd on, room for the image's layer; if ``tuned``, less of the rest."""
    if tuned:
        trim(tree)
    wants = tree / "etc/systemd/system/multi-user.target.wants"
    wants.mkdir(exist_ok=True)
    for name in ENABLED:
        (wants / name).unlink(missing_ok=True)
        (wants / name).symlink_to(f"/lib/systemd/system/{name}")
    _make_layer(tree / "var/lib/lab")


def make_system_disk(tree: Path, target: Path) -> None:
    """An ext4 file system of ``tree``."""
    used = sum(path.lstat().st_blocks * 512 for path in tree.rglob("*"))
    _make_ext4(tree, target, used * 5 // 4 + FREE_BYTES)


def make_scratch_disk(staging: Path, target: Path) -> None:
    """An empty ext4 file system with the two directories of an overlay's writable layer."""
    staging.mkdir()
    _make_layer(staging)
    _make_ext4(staging, target, FREE_BYTES)


def make_layer_template(directory: Path, name: str) -> None:
    """``NAME.qcow2`` in ``directory``, an empty writable layer over the raw disk ``NAME.ext4``."""
    run(
        ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", f"{name}.ext4", f"{name}.qcow2"],
        directory=directory,
        timeout_seconds=platform().patience * MAKE_TIMEOUT_SECONDS,
    )


def _make_layer(directory: Path) -> None:
    for name in ("upper", "work"):
        (directory / name).mkdir(parents=True, exist_ok=True)


def _make_ext4(source: Path, target: Path, size_bytes: int) -> None:
    """No journal: the disk lives as long as its machine, and a journal's writes would count as the application's."""
    with target.open("wb") as disk:
        disk.truncate(size_bytes)
    run(
        ["mke2fs", "-q", "-t", "ext4", "-O", "^has_journal,^resize_inode", "-m", "0", "-E", "root_owner=0:0",
         "-d", source, target],
        timeout_seconds=platform().patience * MAKE_TIMEOUT_SECONDS,
    )  # fmt: skip
