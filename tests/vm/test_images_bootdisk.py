"""A disk made of an image boots by the very line that was printed, and ends with its command."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tiny import GREETING, tiny_image

from lab.hypervisor.guest.grub import BIOS
from lab.images.store import Origin, Store
from lab.model import ImageConfig

LAB = [sys.executable, "-c", "from lab.cli.main import main; main()"]
SCRIPT = "cat /srv/index.html; id -u; pwd; echo $WORD; uname -n; echo kept >/tmp/file && cat /tmp/file; exit 7"


@pytest.mark.slow
def test_the_printed_command_boots_the_disk_and_the_command_s_end_is_the_machine_s(
    lab_home: Path, tmp_path: Path, missing: Callable[[str], None]
) -> None:
    if BIOS.missing:
        missing("GRUB for BIOS")
    store = Store.open(lab_home)
    config = ImageConfig(
        environment={"PATH": "/bin", "WORD": "a 'quoted' word"}, entrypoint=("sh", "-c"), command=(SCRIPT,),
        user="alice", working_directory="/srv",
    )  # fmt: skip
    store.add_image("test/boot:1", config=config, layers=tiny_image(store).layers, origin=Origin.BUILT)
    disk = tmp_path / "disk.qcow2"
    try:
        printed = subprocess.run(
            [*LAB, "image", "disk", "test/boot:1", str(disk), "--free", "32M"], capture_output=True, check=True,
            text=True, env={**os.environ, "LAB_HOME": str(lab_home)},
        ).stdout  # fmt: skip
    finally:
        store.untag({"test/boot:1"})
    assert list(tmp_path.iterdir()) == [disk]
    subprocess.run(["qemu-img", "check", "-q", disk], check=True)
    words = shlex.split(printed)
    assert words[0] == "qemu-system-x86_64"
    done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, check=True, timeout=120)
    lines = done.stdout.decode("utf-8", "replace").replace("\r", "").splitlines()
    begun = next(index for index, line in enumerate(lines) if line.endswith("lab: starting test/boot:1"))
    assert lines[begun + 1 : begun + 8] == [
        GREETING.strip(), "1000", "/srv", "a 'quoted' word", "boot", "kept", "lab: test/boot:1 ended with 7",
    ]  # fmt: skip
