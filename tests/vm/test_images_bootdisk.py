"""A disk made of an image boots by the line that was printed, hears the power button, and ends with its command."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tiny import GREETING, tiny_image

from lab.hypervisor.guest.grub import ALIGNMENT_BYTES, BIOS, BOOT_BYTES
from lab.images.store import Origin, Store
from lab.model import ImageConfig

LAB = [sys.executable, "-c", "from lab.cli.main import main; main()"]
SCRIPT = """
trap 'echo asked >>/tmp/file; cat /tmp/file; exit 7' INT
cat /srv/index.html; id -u; pwd; echo $WORD; uname -n; echo kept >/tmp/file
(while :; do echo x >>/tmp/other; done) &
while :; do sleep 1; done
"""
PRESS = b"\x01csystem_powerdown\n"  # to QEMU's monitor, which shares the terminal with the serial port


@pytest.mark.slow
def test_the_printed_command_boots_the_disk_and_the_power_button_ends_its_command_and_all(
    lab_home: Path, tmp_path: Path, missing: Callable[[str], None]
) -> None:
    if BIOS.missing:
        missing("GRUB for BIOS")
    store = Store.open(lab_home)
    config = ImageConfig(
        environment={"PATH": "/bin", "WORD": "a 'quoted' word"}, entrypoint=("sh", "-c"), command=(SCRIPT,),
        user="alice", working_directory="/srv", stop_signal="SIGINT",
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
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as machine:
        assert machine.stdin
        assert machine.stdout
        lines = [clean(machine.stdout.readline())]
        while lines[-1] != "boot":
            assert machine.poll() is None, lines[-12:]
            lines.append(clean(machine.stdout.readline()))
        machine.stdin.write(PRESS)
        machine.stdin.flush()
        lines += map(clean, machine.stdout)
    assert machine.returncode == 0
    begun = next(index for index, line in enumerate(lines) if line.endswith("lab: starting test/boot:1"))
    assert lines[begun + 1 : begun + 6] == [GREETING.strip(), "1000", "/srv", "a 'quoted' word", "boot"]
    told = [line for line in lines if line in ("kept", "asked", "lab: test/boot:1 ended with 7")]
    assert told == ["kept", "asked", "lab: test/boot:1 ended with 7"]
    whole = tmp_path / "disk.raw"
    subprocess.run(["qemu-img", "convert", "-O", "raw", disk, whole], check=True)
    files = f"{whole}?offset={ALIGNMENT_BYTES + BOOT_BYTES}"
    kept = subprocess.run(["debugfs", "-R", "cat /tmp/file", files], capture_output=True, check=True)
    assert kept.stdout == b"kept\nasked\n"
    state = subprocess.run(["dumpe2fs", "-h", files], capture_output=True, text=True, check=True).stdout
    assert "needs_recovery" not in state, "it was not unmounted, although another process wrote to the very end"


def clean(line: bytes) -> str:
    """Without what the monitor may have printed before it."""
    return line.decode("utf-8", "replace").strip().removeprefix("(qemu) ")
