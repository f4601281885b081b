"""What somebody else made, from disks: two Debians side by side, and what is no Linux at all."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from bootable import Untouched, program_disk
from debian_disks import PORT, debian_disk
from host_state import assert_unchanged, snapshot

from lab.hypervisor.guest.grub import BIOS

LAB = [sys.executable, "-c", "from lab.cli.main import main; main()"]
SECONDS = 1800.0
DEBIANS = {"debian12": ("bookworm", "Debian GNU/Linux 12"), "debian13": ("trixie", "Debian GNU/Linux 13")}
MEMTEST = "log:Pass:  0"  # of its status, when it has begun to test
IPXE = r"log:net0: 198\.18\.\d+\.\d+/"

pytestmark = [pytest.mark.nightly, pytest.mark.timeout(SECONDS)]


def unpacked(package: str, folder: Path) -> Path:
    """What a package of Debian's holds. Nothing is installed; without a way to an archive the test is skipped."""
    folder.mkdir()
    got = subprocess.run(["apt-get", "download", package], cwd=folder, capture_output=True, check=False, text=True)
    found = list(folder.glob("*.deb"))
    if got.returncode or not found:
        pytest.skip(f"no {package} from Debian's archives: {got.stderr.strip().splitlines()[-1:]}")
    subprocess.run(["dpkg-deb", "-x", found[0], folder / "tree"], check=True)
    return folder / "tree"


@pytest.fixture(scope="module")
def memtest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Memtest86+, which boots as a Linux kernel does and is none; started by GRUB, since it needs to be told of the
    serial port, which its own ISO does not do.
    """
    if BIOS.missing:
        pytest.skip("GRUB for BIOS is not installed")
    folder = tmp_path_factory.mktemp("memtest")
    (program,) = (unpacked("memtest86+", folder / "package") / "boot").glob("*x64.bin")
    return program_disk(folder / "memtest86.raw", program.read_bytes(), "console=ttyS0,115200 nopause nosmp")


@pytest.fixture(scope="module")
def ipxe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A boot program with drivers and a network of its own."""
    folder = tmp_path_factory.mktemp("ipxe")
    return unpacked("ipxe", folder / "package") / "usr/lib/ipxe/ipxe.iso"


@pytest.mark.parametrize("devices", ["virtio", "plain"])
def test_memtest_tests_the_memory_that_it_was_given(memtest: Path, devices: str) -> None:
    before = Untouched.of(memtest)
    done = _run(memtest, "--knob", f"devices={devices}", "--ready", MEMTEST, "--memory", "64M")
    assert "is ready (log line)" in done.stderr, done.stderr
    assert "Memtest86+" in done.stdout
    assert "of 63." in done.stdout, "MiB"
    assert "QEMU Standard PC" in done.stdout
    before.check()


@pytest.mark.parametrize("devices", ["virtio", "plain"])
def test_ipxe_gets_an_address(ipxe: Path, devices: str) -> None:
    done = _run(ipxe, "--disk-format", "raw", "--knob", f"devices={devices}", "--ready", IPXE)
    assert "is ready (log line)" in done.stderr, done.stderr
    assert "iPXE" in done.stdout


def test_what_is_no_linux_is_compared(memtest: Path, ipxe: Path, lab_home: Path, tmp_path: Path) -> None:
    """All that is measured from outside is; what would have to be asked inside is no sample, and the page says so."""
    host = snapshot(lab_home)
    ready = f"log:{MEMTEST.removeprefix('log:')}|{IPXE.removeprefix('log:')}"
    folder = _compared(tmp_path, f"vm:{memtest},vm:{ipxe}:format=raw", "--ready", ready, "--memory", "64M")
    samples = [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]
    assert all(sample["status"] == "ok" for sample in samples)
    of = {arm: {each["quantity"] for each in samples if each["arm"] == arm} for arm in ("vm:memtest86", "vm:ipxe")}
    for quantities in of.values():
        assert {"boot.total", "memory.pss", "cpu.boot", "teardown.total"} <= quantities
        assert not any("guest" in each or each.startswith("isolation") for each in quantities)
    page = (folder / "report.md").read_text()
    assert "another system" in page
    assert "Not asked inside" in page
    assert_unchanged(host, home=lab_home)


@pytest.fixture(scope="module")
def debians(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("debians")
    return [debian_disk(suite, folder / f"{name}.raw") for name, (suite, _) in DEBIANS.items()]


def test_two_debians_are_compared(debians: list[Path], lab_home: Path, tmp_path: Path) -> None:
    before, host = [Untouched.of(path) for path in debians], snapshot(lab_home)
    on = ",".join(f"vm:{path}" for path in debians)
    folder = _compared(tmp_path, on, "--ready", "http:/", "--port", str(PORT), "--memory", "512M")
    samples = [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]
    booted = {sample["arm"]: sample["value"] for sample in samples if sample["quantity"] == "boot.total"}
    assert {"vm:debian12", "vm:debian13"} <= set(booted)
    assert all(booted.values()), booted
    for name, (_, release) in DEBIANS.items():
        assert release in (folder / f"logs/b1-vm-{name}/console.log").read_text(errors="replace")
    for each in before:
        each.check()
    assert_unchanged(host, home=lab_home)


def _compared(out: Path, on: str, *options: str) -> Path:
    """The run's folder, after one block."""
    words = [*LAB, "compare", "--on", on, *options, "--metrics", "boot,memory,cpu", "--blocks", "1", "--idle", "1s"]
    done = subprocess.run([*words, "--out", str(out)], capture_output=True, check=False, text=True, timeout=SECONDS)
    assert done.returncode == 0, done.stderr
    assert "did not make" in " ".join(done.stdout.split())
    (folder,) = out.iterdir()
    return folder


def _run(disk: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Until it says that it is ready, or is not; then Ctrl-C."""
    words = [*LAB, "run", "--on", "vm", str(disk), *options]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace") as lab:
        return _until_ready(lab)


def _until_ready(lab: subprocess.Popen[str]) -> subprocess.CompletedProcess[str]:
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
    lab.wait(120)
    reader.join(120)
    return subprocess.CompletedProcess(lab.args, lab.returncode, "".join(said), errors)
