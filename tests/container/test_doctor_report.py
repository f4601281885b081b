"""``lab doctor --report`` on a host that is called, addressed and inhabited as nobody's is: none of it is told."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

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


def test_nothing_of_whose_host_it_is_stands_in_the_report(tmp_path: Path) -> None:
    home = tmp_path / "home" / "planted-alice"
    (home / "data").mkdir(parents=True)
    report = tmp_path / "report.md"
    environment = {
        **os.environ, "HOME": str(home), "LAB_HOME": str(home / "data"), "USER": "planted-alice",
        "SUDO_USER": "planted-alice", "PLANTED_TOKEN": "planted-secret", "http_proxy": "http://planted:pw@203.0.113.1",
        "LAB_ACCELERATOR": "tcg",
    }  # fmt: skip
    done = subprocess.run(
        ["unshare", "--uts", "--net", "sh", "-c", PLANTED, "-", sys.executable, "-c", COMMAND, "doctor",
         "--report", str(report)],
        env=environment, cwd=home, capture_output=True, text=True, timeout=250, check=False,
    )  # fmt: skip
    assert done.returncode in (0, 1), done.stderr  # in a network namespace of its own some checks may fail
    text = report.read_text()
    assert "alice" in "".join(done.stdout.split()), "the terminal names it, so that it would be in the report"
    for word in ("planted", "alice", "203.0.113", "2001:db8", "02:00:5e", "pw@"):
        assert word not in text.lower(), word
    for wanted in ("## Versions", "- lab ", "overlay", "## What runs guests", "kernel_release", "LAB_HOME"):
        assert wanted in text, wanted
    assert report.stat().st_mode & 0o777 == 0o600


def test_what_is_there_is_not_overwritten(tmp_path: Path) -> None:
    there = tmp_path / "report.md"
    there.write_text("mine")
    done = subprocess.run(
        [sys.executable, "-c", COMMAND, "doctor", "--report", str(there)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, there.read_text()) == (1, "mine")
    assert "exists already" in done.stderr
