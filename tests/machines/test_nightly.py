"""What takes too long for every day, in both Debians: all metrics, every study with a machine, lab's own tests."""

from __future__ import annotations

import json

import pytest

from .debian import CHECKOUT
from .disk import APPLICATION
from .inside import lab, shell, state
from .machine import Machine
from .test_daily import check_compare

pytestmark = [pytest.mark.nightly, pytest.mark.parametrize("machine", ["trixie", "bookworm"], indirect=True)]
OUT = "/var/tmp/nightly"

# Those that make no demands on time which nothing emulated can meet.
CHOSEN = (
    "tests/vm/test_backends_machine.py",
    "tests/vm/test_detached_machines.py::test_every_verb",
    "tests/vm/test_streams_in_guests.py",
    "tests/vm/test_terminal_in_guests.py",
    "tests/vm/test_knobs_of_machines.py",
    "tests/vm/test_restored_machines.py",
    "tests/vm/test_isolation_in_a_guest.py",
    "tests/vm/test_qemu_jail.py",
    "tests/vm/test_libvirt_folder.py",
    "tests/vm/test_own_disks.py",
)


@pytest.fixture(autouse=True)
def _same_machine(machine: Machine) -> object:
    before = state(machine)
    yield
    assert state(machine) == before


def test_doctor(machine: Machine) -> None:
    lab(machine, "doctor")
    assert json.loads(shell(machine, "cat /var/lib/lab/cache/kvm.json"))["accelerator"] == "kvm"


def test_the_whole_main_job(machine: Machine) -> None:
    check_compare(machine)


def test_saved_and_restored(machine: Machine) -> None:
    """The first start saves it."""
    for _ in ("saved", "restored"):
        lab(machine, "run", "-d", "--name", "web", "--on", "microvm", "--knob", "start=restore", APPLICATION)
        (shown,) = json.loads(lab(machine, "ps", "--json").stdout)
        assert shown["condition"] == "running"
        lab(machine, "rm", "-f", "web")


@pytest.mark.parametrize(
    "words",
    [
        ("density", APPLICATION, "--on", "container,microvm", "--up-to", "2"),
        ("noisy", APPLICATION, "--on", "container,microvm", "--kind", "cpu", "--blocks", "1"),
        ("isolation", "ladder", APPLICATION, "--rungs", "chroot,limits,microvm", "--blocks", "1", "--no-probes"),
        ("isolation", "surface", APPLICATION, "--on", "container,microvm", "--blocks", "1"),
    ],
    ids=["density", "noisy", "ladder", "surface"],
)
def test_a_study_with_a_machine(machine: Machine, words: tuple[str, ...]) -> None:
    shell(machine, f"rm -rf {OUT}")
    lab(machine, *words, "--out", OUT, timeout_seconds=3600)
    run = json.loads(shell(machine, f"cat {OUT}/*/run.json"))
    assert {arm["accelerator"] for arm in run["arms"] if arm["backend"] == "microvm"} == {"kvm"}
    if "surface" in words:
        text = shell(machine, f"cat {OUT}/*/samples.jsonl")
        exits = [one for one in map(json.loads, text.splitlines()) if "exit" in one["quantity"]]
        assert any(one["value"] > 0 for one in exits), "a machine under KVM leaves the guest again and again"


def test_isolation_without_a_false_surprise(machine: Machine) -> None:
    lab(machine, "isolation", "--on", "container,userns,microvm", timeout_seconds=3600)


@pytest.mark.parametrize("tests", CHOSEN)
def test_labs_own_tests(machine: Machine, tests: str) -> None:
    options = ["-p", "no:cacheprovider", "--timeout", "2400", "-m", "nightly or not nightly"]
    environment = ["env", "LAB_REQUIRE=vm", "LAB_TEST_HOME=/var/lib/lab"]
    done = machine.run(
        *environment, ".venv/bin/pytest", *options, *tests.split(), directory=CHECKOUT, timeout_seconds=5000
    )
    assert done.returncode == 0, f"{done.stdout[-8000:]}\n{done.stderr[-2000:]}"
