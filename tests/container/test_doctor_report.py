"""``lab doctor --report`` on a host that is called, addressed and inhabited as nobody's is: none of it is told."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

from lab.hypervisor.accelerator import Verdict
from lab.model import Accelerator

PLANTED = """
set -e
hostname planted-host
ip link add planted0 address 02:00:5e:10:20:30 type bridge
ip address add 203.0.113.77/24 dev planted0
ip address add 2001:db8:17::77/64 dev planted0 2>/dev/null || true
ip link set planted0 up
exec "$@"
"""
COMMAND = "from lab.cli.main import main; main()"


WORDS = ("planted", "alice", "203.0.113", "2001:db8", "02:00:5e", "02-00-5e", "pw@")
CONSOLE = """Linux version 6.1.0 (planted-alice@planted-host) on virtio
\tCommand line: console=ttyS0 ip=203.0.113.77::203.0.113.1:255.255.255.0:planted-host:eth0:off\r
eth0: 02:00:5e:10:20:30, once 02-00-5E-10-20-30; inet6 2001:db8:17::77/64; [2001:db8:17::77]:80
can't open {home}/data/guest/vmlinux; token planted-secret via http://planted:pw@203.0.113.1
\x1b[1mKernel panic - not syncing\x1b[0m: 127.0.0.1 said PLANTED-HOST has no init
"""


def reported(tmp_path: Path, **settings: str) -> tuple[str, str]:
    """The report from such a host, and what the terminal showed."""
    home = tmp_path / "home" / "planted-alice"
    (home / "data").mkdir(parents=True, exist_ok=True)
    report = tmp_path / "report.md"
    environment = {
        **os.environ, "HOME": str(home), "LAB_HOME": str(home / "data"), "USER": "planted-alice",
        "SUDO_USER": "planted-alice", "PLANTED_TOKEN": "planted-secret", "http_proxy": "http://planted:pw@203.0.113.1",
        **settings,
    }  # fmt: skip
    done = subprocess.run(
        ["unshare", "--uts", "--net", "sh", "-c", PLANTED, "-", sys.executable, "-c", COMMAND, "doctor",
         "--report", str(report)],
        env=environment, cwd=home, capture_output=True, text=True, timeout=250, check=False,
    )  # fmt: skip
    assert done.returncode in (0, 1), done.stderr  # in a network namespace of its own some checks may fail
    assert report.stat().st_mode & 0o777 == 0o600
    return report.read_text(), done.stdout


def test_nothing_of_whose_host_it_is_stands_in_the_report(tmp_path: Path) -> None:
    text, shown = reported(tmp_path, LAB_ACCELERATOR="tcg")
    assert "alice" in "".join(shown.split()), "the terminal names it, so that it would be in the report"
    for word in WORDS:
        assert word not in text.lower(), word
    for wanted in ("## Versions", "- lab ", "overlay", "## What runs guests", "kernel_release", "LAB_HOME"):
        assert wanted in text, wanted
    assert "console" not in text


def test_nor_what_the_guest_of_the_proof_wrote_to_its_console(tmp_path: Path) -> None:
    home = tmp_path / "home" / "planted-alice"
    proof = Verdict(
        accelerator=Accelerator.KVM, reason="planted-host booted", console=CONSOLE.format(home=home),
        boot_id=Path("/proc/sys/kernel/random/boot_id").read_text().strip(), kernel=os.uname().release,
    )  # fmt: skip
    kept = home / "data" / "cache" / "kvm.json"
    kept.parent.mkdir(parents=True)
    kept.write_text(json.dumps(asdict(proof)))
    text, _ = reported(tmp_path, LAB_ACCELERATOR="")
    _, told, console = text.partition("The end of the console when KVM was asked for a proof (kvm):\n\n")
    assert told, "the record is not what the report looks for"
    console = console.partition("## ")[0]
    for word in ("Linux version 6.1.0 (", "console=ttyS0 ip=", "can't open ", "; token ", "127.0.0.1 said "):
        assert word in console, "what names nobody stays"
    assert len(console.strip().splitlines()) == len(CONSOLE.splitlines())
    for word in WORDS:
        assert word not in text.lower(), word


def test_what_is_there_is_not_overwritten(tmp_path: Path) -> None:
    there = tmp_path / "report.md"
    there.write_text("mine")
    done = subprocess.run(
        [sys.executable, "-c", COMMAND, "doctor", "--report", str(there)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, there.read_text()) == (1, "mine")
    assert "exists already" in done.stderr
