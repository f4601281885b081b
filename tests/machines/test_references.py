"""The boundaries of others on Debian 13, by root: systemd is there, and cgroup v2 alone, which is systemd's.

Each is installed, or fetched by lab, as its page says, and has to do what people do with it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from .debian import CHECKOUT
from .disk import APPLICATION
from .inside import GET, lab, shell, state
from .machine import Machine

# Those that are there come first, then those that lab fetches; apt comes last.
BACKENDS = ("runc", "crun", "oci:crun", "bwrap", "nspawn", "gvisor", "uml", "krun", "podman", "docker")
PACKAGES = {"podman": "podman", "docker": "docker.io docker-cli"}
pytestmark = [
    pytest.mark.nightly,
    pytest.mark.parametrize("machine", ["trixie"], indirect=True),
    pytest.mark.parametrize("backend", BACKENDS),
]

OUT = "/var/tmp/references"
INSTALL = """
. ./bootstrap
identify_system
apt_install {0} || {{ apt update && apt_install {0}; }}
"""
KILL = f"""
.venv/bin/lab run --on {{backend}} {APPLICATION} -- sh -c 'echo it runs; sleep 5000' > /var/tmp/killed.log 2>&1 &
lab=$!
until grep -q 'it runs' /var/tmp/killed.log; do
    kill -0 $lab || {{{{ cat /var/tmp/killed.log; exit 3; }}}}
    sleep 1
done
kill -KILL $lab
.venv/bin/lab clean
for second in $(seq 120); do pgrep -fx 'sleep 5000' > /dev/null || exit 0; sleep 1; done
exit 4
"""
KILLED = 137


@pytest.fixture(autouse=True)
def _as_it_was(machine: Machine, backend: str) -> Iterator[None]:
    if packages := PACKAGES.get(backend):
        shell(machine, f"bash -euc '{INSTALL.format(packages)}'", timeout_seconds=3600)
    before = state(machine)
    yield
    lab(machine, "clean")
    assert state(machine) == before


def test_the_verbs(machine: Machine, backend: str) -> None:
    done = lab(machine, "run", "--on", backend, APPLICATION, "--", "sh", "-c", "echo it ran; exit 7", code=7)
    assert "it ran" in done.stdout.splitlines()
    lab(machine, "run", "-d", "--wait", "-p", "8080:5000", "--name", "web", "--on", backend, APPLICATION)
    try:
        assert "Hello" in shell(machine, f".venv/bin/python -c '{GET}' http://127.0.0.1:8080/")
        lab(machine, "exec", "web", "--", "sh", "-c", "exit 3", code=3)
        (shown,) = json.loads(lab(machine, "ps", "--json").stdout)
        assert (shown["name"], shown["condition"]) == ("web", "running")
        lab(machine, "stop", "web")
    finally:
        lab(machine, "rm", "-f", "web")


def test_what_takes_more_memory_than_it_may_is_killed(machine: Machine, backend: str) -> None:
    words = ("run", "--on", backend, "-m", "64M", APPLICATION, "--", "sh", "-c")
    assert "some" in lab(machine, *words, "echo some | tail -1").stdout.splitlines()
    lab(machine, *words, "exec tail /dev/zero", code=KILLED)


def test_the_main_job(machine: Machine, backend: str) -> None:
    shell(machine, f"rm -rf {OUT}")
    lab(
        machine, "compare", APPLICATION, "--on", f"container,{backend}", "--metrics", "boot,memory", "--blocks", "1",
        "--idle", "1s", "--out", OUT, timeout_seconds=3600,
    )  # fmt: skip
    samples = [json.loads(line) for line in shell(machine, f"cat {OUT}/*/samples.jsonl").splitlines()]
    assert {one["status"] for one in samples} == {"ok"}
    quantities = {one["quantity"] for one in samples if one["backend"] == backend and not one["warmup"]}
    assert {"boot.total", "memory.pss", "memory.cgroup.usage"} <= quantities


def test_lab_is_killed_and_cleaned_up_after(machine: Machine, backend: str) -> None:
    """What is left then `_as_it_was` sees."""
    done = machine.run(KILL.format(backend=backend), directory=CHECKOUT)
    assert done.returncode == 0, done.stdout + done.stderr
