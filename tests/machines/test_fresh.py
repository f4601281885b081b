"""A newcomer's Debian with nothing of lab's: a clean clone, and README's two commands as they are typed.

apt and pip go through QEMU's user network. Both commands are asked for less than they would do, since as typed they
take hours under emulation: the first for one block of two metrics instead of at least three of all (`test_nightly`
asks for all), the second for some tests of `tests/unit` and `tests/container` (the part that needs a machine runs in
`test_nightly`). One Debian is used by root, the other by an ordinary user with sudo.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from . import checkout
from .debian import USER
from .inside import state_of_systemd
from .machine import Machine

pytestmark = pytest.mark.nightly
SECONDS = 9000.0
PLACES = {"root": Path("/root/lab"), USER: Path(f"/home/{USER}/lab")}
TESTS = (
    "tests/unit/test_bootstrap.py",
    "tests/unit/test_cgroup.py",
    "tests/unit/test_checks.py",
    "tests/unit/test_classroom_exercises.py",
    "tests/unit/test_doctor.py",
    "tests/unit/test_runtime_config.py",
    "tests/unit/test_systemd.py",
    "tests/container/test_runtime_life.py",
)
COMMANDS = ("lab compare web-app --blocks 1 --metrics boot,memory --idle 1s", f"pytest {' '.join(TESTS)}")


@pytest.mark.timeout(3 * SECONDS)
@pytest.mark.parametrize(("fresh", "user"), [("trixie", USER), ("bookworm", "root")], indirect=["fresh"])
def test_readme(fresh: Machine, tmp_path: Path, user: str) -> None:
    before = state_of_systemd(fresh)
    checkout.bundle(tmp_path / "bundle")
    upload = fresh.run("cat > /var/tmp/lab.bundle", stdin=(tmp_path / "bundle").read_bytes())
    assert upload.returncode == 0, upload.stderr
    cloned = fresh.run("git", "clone", "--quiet", "/var/tmp/lab.bundle", str(PLACES[user]), user=user)
    assert cloned.returncode == 0, cloned.stderr
    for words in COMMANDS:
        done = fresh.run(f"sudo ./bootstrap {words}", user=user, directory=PLACES[user], timeout_seconds=SECONDS)
        assert done.returncode == 0, f"{words}\n{done.stdout[-6000:]}\n{done.stderr[-6000:]}"
        assert "Traceback" not in done.stderr
    assert state_of_systemd(fresh) == before
