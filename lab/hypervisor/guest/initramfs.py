"""The initramfs that every guest starts from: busybox, a few modules, two scripts and lab's static helper."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from lab.hypervisor.guest import cpio

SCRIPTS = Path(__file__).parent
MACHINE = "run/lab"


def build_initramfs(*, busybox: Path, modules: Iterable[Path], helper: Path) -> bytes:
    """The archive; uncompressed, since unpacking costs an emulated CPU more than copying does."""
    entries = [
        cpio.file("init", (SCRIPTS / "init.sh").read_bytes(), 0o755),
        cpio.file("bin/busybox", busybox.read_bytes(), 0o755),
        cpio.file(f"{MACHINE}/lab.sh", (SCRIPTS / "lab.sh").read_bytes()),
        cpio.file(f"{MACHINE}/helper/inside", helper.read_bytes(), 0o755),
        *(cpio.file(f"{MACHINE}/modules/{path.name}", path.read_bytes()) for path in sorted(modules)),
    ]
    mount_points = [cpio.directory(path) for path in ("proc", "sys", "dev", "root")]
    return cpio.archive([*mount_points, *cpio.with_parents(entries)])
