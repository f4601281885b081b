"""Ordinary users of both Debians: several at once, podman of one with `lab-oci`; systemd owns the groups."""

from __future__ import annotations

import pytest

from .debian import CHECKOUT, HOME
from .inside import shell, state
from .machine import Machine

pytestmark = [pytest.mark.nightly, pytest.mark.parametrize("machine", ["trixie", "bookworm"], indirect=True)]

INSTALL = """
. ./bootstrap
identify_system
apt_install podman || { apt update && apt_install podman; }
"""
V1 = "test_limits_hold_in_groups_of_the_user_s"
"""It asks for delegated groups of cgroup v1, of which these machines have none."""

CHOSEN = {
    "crowd": "tests/container/test_rootless_crowd.py",
    "oci": "tests/container/test_rootless_oci.py",
    "podman": "tests/container/test_rootless_podman.py",
}


@pytest.mark.parametrize("what", CHOSEN)
def test_ordinary_users(machine: Machine, what: str) -> None:
    if what == "podman":
        shell(machine, f"bash -euc '{INSTALL}'", timeout_seconds=1800)
    shell(machine, f"chmod a+rx {HOME}")  # Debian 13's useradd closes it, and it is the checkout that they all use
    before = state(machine)
    options = ["-p", "no:cacheprovider", "-n", "0", "--timeout", "4500", "-rs"]
    options += ["-m", "nightly or not nightly", "-k", f"not {V1}"]
    done = machine.run(
        "env", "LAB_REQUIRE=container", "LAB_TEST_HOME=/var/lib/lab", ".venv/bin/pytest", *options, CHOSEN[what],
        directory=CHECKOUT, timeout_seconds=5000,
    )  # fmt: skip
    assert done.returncode == 0, f"{done.stdout[-8000:]}\n{done.stderr[-2000:]}"
    assert "skipped" not in done.stdout, done.stdout
    assert state(machine) == before
