"""Docker Engine in an ordinary machine: systemd makes its control groups, and AppArmor has a profile for it.

The checks are of `tests/container/test_docker_*.py`, with lab-oci and with runc. Docker is installed for them, as
`./bootstrap` would, its services masked.
"""

from __future__ import annotations

import pytest

from .debian import CHECKOUT
from .inside import shell, state
from .machine import Machine

pytestmark = [pytest.mark.nightly, pytest.mark.parametrize("machine", ["trixie"], indirect=True)]

INSTALL = """
. ./bootstrap
identify_system
apt_install docker.io docker-cli || { apt update && apt_install docker.io docker-cli; }
"""
CHECKS = {
    "life": "exit_codes or stop_kill or restart or pause or limits_and_names or top_and_pid or health or terminal"
    " or bridge",
    "surroundings": "defaults or users or streams or null_device or no_new_privileges or privileged or masks"
    " or cgroup or a_device",
    "resources": "test_limits or too_much_memory or update or statistics or where_its_group_is",
    "left": "left",
}


@pytest.fixture(scope="module")
def installed(machine: Machine) -> Machine:
    done = machine.run("bash", "-euc", INSTALL, directory=CHECKOUT, timeout_seconds=1800)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert shell(machine, "systemctl is-enabled docker.service containerd.service || true").split() == ["masked"] * 2
    return machine


@pytest.mark.parametrize("kind", CHECKS)
def test_with_systemd(installed: Machine, kind: str) -> None:
    before = state(installed)
    options = ["-p", "no:cacheprovider", "-n", "0", "--timeout", "1200", "-rs"]
    words = ["env", "LAB_REQUIRE=container", ".venv/bin/pytest", *options, f"tests/container/test_docker_{kind}.py"]
    done = installed.run(*words, "-k", CHECKS[kind], directory=CHECKOUT, timeout_seconds=5000)
    assert done.returncode == 0, f"{done.stdout[-8000:]}\n{done.stderr[-2000:]}"
    assert state(installed) == before
