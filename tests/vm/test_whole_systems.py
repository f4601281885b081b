"""What somebody else made and is no Linux, from a disk."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

LAB = [sys.executable, "-c", "from lab.cli.main import main; main()"]
IPXE = Path("/usr/lib/ipxe/ipxe.iso")

pytestmark = pytest.mark.nightly


@pytest.mark.parametrize("devices", ["virtio", "plain"])
def test_what_is_no_linux_boots_and_gets_an_address(devices: str) -> None:
    """iPXE, a boot program with drivers and a network of its own: no operating system, and no Linux."""
    if not IPXE.exists():
        pytest.skip("iPXE is not installed: apt-get install ipxe")
    wanted = ("--disk-format", "raw", "--knob", f"devices={devices}", "--ready", r"log:net0: 198\.18\.0\.2/")
    done = _run(IPXE, *wanted)
    assert "is ready (log line)" in done.stderr, done.stderr
    assert "iPXE" in done.stdout


def _run(disk: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Until it says that it is ready, or is not; then its power button is pressed."""
    words = [*LAB, "run", "--on", "vm", str(disk), *options]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace") as lab:
        return _until_ready(lab)


def _until_ready(lab: subprocess.Popen[str]) -> subprocess.CompletedProcess[str]:
    import signal
    import threading

    assert lab.stdout is not None
    assert lab.stderr is not None
    said: list[str] = []
    reader = threading.Thread(target=lambda stream=lab.stdout: said.append(stream.read()), daemon=True)
    reader.start()
    errors = ""
    for line in lab.stderr:
        errors += line
        if "is ready" in line or "did not become ready" in line:
            break
    lab.send_signal(signal.SIGINT)
    lab.wait(60)
    reader.join(10)
    return subprocess.CompletedProcess(lab.args, lab.returncode, "".join(said), errors)
