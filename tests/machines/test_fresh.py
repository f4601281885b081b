"""A newcomer's Debian with nothing of lab's: a clean clone, and README's two commands as they are typed.

apt and pip go through QEMU's user network. The second command runs ``tests/unit`` alone, without the linters: the
whole suite takes hours under emulation, and the part that needs a machine runs in `test_nightly`.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from . import checkout
from .debian import USER
from .inside import state_of_systemd
from .machine import Machine

pytestmark = [pytest.mark.nightly, pytest.mark.parametrize("fresh", ["trixie", "bookworm"], indirect=True)]
SECONDS = 5000.0
PLACES = {"root": Path("/root/lab"), USER: Path(f"/home/{USER}/lab")}


@pytest.mark.parametrize("user", [USER, "root"])
def test_readme(fresh: Machine, tmp_path: Path, user: str) -> None:
    before = state_of_systemd(fresh)
    checkout.bundle(tmp_path / "bundle")
    upload = fresh.run("cat > /var/tmp/lab.bundle", stdin=(tmp_path / "bundle").read_bytes())
    assert upload.returncode == 0, upload.stderr
    cloned = fresh.run("git", "clone", "--quiet", "/var/tmp/lab.bundle", str(PLACES[user]), user=user)
    assert cloned.returncode == 0, cloned.stderr
    for words in ("lab compare web-app", "pytest tests/unit --ignore=tests/unit/test_style.py"):
        done = fresh.run(f"sudo ./bootstrap {words}", user=user, directory=PLACES[user], timeout_seconds=SECONDS)
        assert done.returncode == 0, f"{words}\n{done.stdout[-6000:]}\n{done.stderr[-6000:]}"
        assert "Traceback" not in done.stderr
    assert state_of_systemd(fresh) == before
