"""Folders that are an instance's root: open to every user, filled with busybox."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

BUSYBOX = Path("/bin/busybox")


@contextmanager
def open_folder() -> Iterator[Path]:
    """A temporary folder that every user may pass through, as a mapped root must."""
    with tempfile.TemporaryDirectory(prefix="lab-test-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


def fill(root: Path) -> None:
    (root / "bin").mkdir()
    (root / "tmp").mkdir()
    shutil.copy(BUSYBOX, root / "bin" / "busybox")
    applets = subprocess.run([BUSYBOX, "--list"], capture_output=True, text=True, check=True).stdout.split()
    for applet in applets:
        if applet != "busybox":
            (root / "bin" / applet).symlink_to("busybox")
