"""Operating systems that somebody else made, from disks: two Debians side by side, and one that is no Linux."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from bootable import Untouched
from debian_disks import PORT, debian_disk
from host_state import assert_unchanged, snapshot

LAB = [sys.executable, "-c", "from lab.cli.main import main; main()"]
SECONDS = 1800.0
SUITES = {"debian12": "bookworm", "debian13": "trixie"}
IPXE = Path("/usr/lib/ipxe/ipxe.iso")

pytestmark = pytest.mark.nightly


@pytest.fixture(scope="module")
def disks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """By short name, under the names that somebody would give them."""
    folder = tmp_path_factory.mktemp("disks")
    for name, suite in SUITES.items():
        (folder / f"{name}.raw").symlink_to(debian_disk(suite))
    return {name: folder / f"{name}.raw" for name in SUITES}


def test_two_debians_are_compared(disks: dict[str, Path], lab_home: Path, tmp_path: Path) -> None:
    before, host = [Untouched.of(path.resolve()) for path in disks.values()], snapshot(lab_home)
    on = ",".join(f"vm:{path}" for path in disks.values())
    words = [
        *LAB, "compare", "--on", on, "--ready", "http:/", "--port", str(PORT), "--metrics", "boot,memory", "--blocks",
        "1", "--idle", "1s", "--memory", "512M", "--out", str(tmp_path),
    ]  # fmt: skip
    done = subprocess.run(words, capture_output=True, check=False, text=True, timeout=SECONDS)
    assert done.returncode == 0, done.stderr
    (folder,) = tmp_path.iterdir()
    samples = [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]
    booted = {sample["arm"]: sample["value"] for sample in samples if sample["quantity"] == "boot.total"}
    assert set(booted) >= {"vm:debian12", "vm:debian13"}
    assert all(booted.values()), booted
    for name, release in (("debian12", "Debian GNU/Linux 12"), ("debian13", "Debian GNU/Linux 13")):
        (console,) = (folder / "logs").glob(f"b1-vm-{name}/console.log")
        assert release in console.read_text(errors="replace")
    for each in before:
        each.check()
    assert_unchanged(host, home=lab_home)


@pytest.mark.parametrize("name", SUITES)
def test_a_debian_boots_with_devices_that_are_no_virtio(disks: dict[str, Path], name: str) -> None:
    """Its disk is behind AHCI and its card is an e1000e, which Debian's kernel says."""
    done = _run(disks[name], "--knob", "devices=plain", "--ready", "http:/", "--port", str(PORT), "--memory", "512M")
    assert "is ready (first answer)" in done.stderr, done.stderr
    assert "ahci" in done.stdout
    assert "e1000e" in done.stdout
    assert "virtio" not in done.stdout


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
