"""lab's main job on Debian 13 as people have it: systemd, cgroup v2 alone, AppArmor, and KVM that is proven to work.

In the order of the file, in one machine, which must be at the end as it was at the beginning.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from .debian import CHECKOUT, USER
from .disk import APPLICATION
from .inside import lab, shell, state
from .machine import Machine

pytestmark = pytest.mark.parametrize("machine", ["trixie"], indirect=True)
BACKENDS = ("process", "container", "microvm", "vm")
RESULTS = "/var/tmp/results"
ON_CGROUP_V2 = "inside_cgroup_v2 or (limit or exit_codes or throttles or charged or frozen) and not runc"

KILLED = """
.venv/bin/lab run web-app --on microvm > /var/tmp/killed.log 2>&1 &
lab=$!
until pgrep -x qemu-system-x86 > /dev/null; do
    kill -0 $lab || { cat /var/tmp/killed.log; exit 3; }
    sleep 1
done
kill -KILL $lab
.venv/bin/lab clean
for second in $(seq 120); do pgrep -x qemu-system-x86 > /dev/null || exit 0; sleep 1; done
exit 4
"""


@pytest.fixture(scope="module")
def before(machine: Machine) -> dict[str, list[str]]:
    return state(machine)


def test_the_machine_is_an_ordinary_one(machine: Machine, before: dict[str, list[str]]) -> None:
    assert before["systemd"] == ["running"]
    assert shell(machine, "cat /proc/1/comm").strip() == "systemd"
    assert shell(machine, "findmnt --noheadings --output FSTYPE --types cgroup,cgroup2").split() == ["cgroup2"]
    assert shell(machine, "cat /sys/module/apparmor/parameters/enabled").strip() == "Y"
    assert shell(machine, "networkctl --no-legend list | grep -c routable").strip() == "1"
    assert "kvm_amd" in shell(machine, "lsmod")
    assert shell(machine, "id -un; sudo -n id -un", user=USER).split() == [USER, "root"]


def test_doctor_proves_kvm(machine: Machine, before: dict[str, list[str]]) -> None:
    lab(machine, "doctor")
    verdict = json.loads(shell(machine, "cat /var/lib/lab/cache/kvm.json"))
    assert verdict["accelerator"] == "kvm", verdict


@pytest.mark.parametrize("backend", ["microvm", "vm"])
def test_output_and_exit_code(machine: Machine, backend: str) -> None:
    done = lab(machine, "run", APPLICATION, "--on", backend, "--", "sh", "-c", "echo it ran; exit 7", code=7)
    assert "it ran" in done.stdout.splitlines()


@pytest.fixture
def detached(machine: Machine) -> Iterator[str]:
    lab(machine, "run", "-d", "--name", "web", "--on", "microvm", APPLICATION)
    try:
        yield "web"
    finally:
        lab(machine, "rm", "-f", "web")


def test_the_verbs_of_a_detached_machine(machine: Machine, detached: str) -> None:
    (shown,) = json.loads(lab(machine, "ps", "--json").stdout)
    assert (shown["name"], shown["condition"]) == (detached, "running")
    lab(machine, "exec", detached, "--", "sh", "-c", "exit 3", code=3)
    typed = lab(machine, "exec", "-it", detached, "--", "tty", terminal=True, own_session=True)
    assert "/dev/" in typed.stdout
    shell(machine, "head -c 100000 /dev/urandom > /var/tmp/there && rm -f /var/tmp/back")
    lab(machine, "cp", "/var/tmp/there", f"{detached}:/tmp/file")
    lab(machine, "cp", f"{detached}:/tmp/file", "/var/tmp/back")
    shell(machine, "cmp /var/tmp/there /var/tmp/back")
    lab(machine, "logs", detached)
    lab(machine, "stop", detached)
    (shown,) = json.loads(lab(machine, "ps", "-a", "--json").stdout)
    assert shown["condition"] == "exited", shown


def test_the_main_job(machine: Machine, before: dict[str, list[str]]) -> None:
    """Fewer metrics than a user gets, to save minutes: `test_nightly` asks for all."""
    check_compare(machine, "--metrics", "boot,memory", "--idle", "1s")


def check_compare(machine: Machine, *words: str) -> None:
    shell(machine, f"rm -rf {RESULTS}")
    lab(
        machine, "compare", APPLICATION, "--blocks", "1", "--on", ",".join(BACKENDS), "--out", RESULTS, *words,
        timeout_seconds=3600,
    )  # fmt: skip
    run = json.loads(shell(machine, f"cat {RESULTS}/*/run.json"))
    stamps = {arm["label"]: arm["accelerator"] for arm in run["arms"] if "#" not in arm["label"]}
    assert stamps == {"process": "native", "container": "native", "microvm": "kvm", "vm": "kvm"}
    samples = [json.loads(line) for line in shell(machine, f"cat {RESULTS}/*/samples.jsonl").splitlines()]
    boots = [one for one in samples if one["quantity"] == "boot.total" and not one["warmup"]]
    assert {one["arm"]: one["status"] for one in boots if "#" not in one["arm"]} == dict.fromkeys(BACKENDS, "ok")
    assert {one["accelerator"] for one in boots if one["backend"] in ("microvm", "vm")} == {"kvm"}
    shell(machine, f"test -s {RESULTS}/*/report.html")
    assert {arm["nested"] for arm in run["arms"]} == {True}, "what was measured in an emulated machine is marked"


def test_limits_hold_on_cgroup_v2_alone(machine: Machine, before: dict[str, list[str]]) -> None:
    """By the tests that ask for them; elsewhere most have a host with cgroup v1."""
    files = [
        f"tests/container/{name}.py" for name in ("inside_cgroup_v2", "test_runtime_life", "test_runtime_failures")
    ]
    words = ["-p", "no:cacheprovider", "-n", "0", "-k", ON_CGROUP_V2, *files]
    environment = ["env", "LAB_REQUIRE=container", "LAB_TEST_HOME=/var/lib/lab"]
    done = machine.run(*environment, ".venv/bin/pytest", *words, directory=CHECKOUT, timeout_seconds=1800)
    assert done.returncode == 0, f"{done.stdout[-6000:]}\n{done.stderr[-2000:]}"
    assert "skipped" not in done.stdout, done.stdout[-2000:]


def test_lab_is_killed_and_cleaned_up_after(machine: Machine, before: dict[str, list[str]]) -> None:
    done = machine.run(KILLED, directory=CHECKOUT)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_machine_is_as_it_was(machine: Machine, before: dict[str, list[str]]) -> None:
    assert state(machine) == before
