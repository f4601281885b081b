"""lab by an ordinary user without sudo, in both Debians: limits by the user's own systemd, KVM by the group kvm.

An administrator has installed lab's packages, and put the user into that group.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from .debian import CHECKOUT, HOME, USER
from .disk import APPLICATION
from .inside import GET, shell
from .machine import Machine

pytestmark = [pytest.mark.nightly, pytest.mark.parametrize("machine", ["trixie", "bookworm"], indirect=True)]

BACKENDS = "process,container,microvm,vm"
OUT = HOME / "out"
SUDOERS = f"/etc/sudoers.d/{USER}"
BASE = "python:3.11-slim"
HUNGRY = """
FROM {image}
USER 0
CMD ["sh", "-c", "exec tail /dev/zero"]
"""
SCENARIO = 'title = "Takes all memory"\n[limits]\nmemory = "64M"\n'

ENROL = f"""
mv {SUDOERS} /root/sudoers
usermod --append --groups kvm {USER}
loginctl enable-linger {USER}
./bootstrap lab image save {APPLICATION} {BASE} -o /var/tmp/images.tar
chmod 644 /var/tmp/images.tar
own={HOME}/.local/share/lab
mkdir -p $own
cp -a --sparse=always /var/lib/lab/guest /var/lib/lab/inside $own
chown -R {USER}: {HOME}/.local
"""
"""What the administrator does; and what an emulated processor would need an hour for: the guest, and the base."""
DISMISS = f"""
mv /root/sudoers {SUDOERS}
gpasswd --delete {USER} kvm > /dev/null
loginctl disable-linger {USER}
rm -rf {HOME}/.local/share/lab {HOME}/.cache/lab {OUT} {HOME}/hungry {HOME}/derived /var/tmp/images.tar
"""
LEFT = f"""
ls -A /run/user/$(id -u {USER})/lab 2> /dev/null
pgrep -x qemu-system-x86
find /sys/fs/cgroup/user.slice -name 'lab-*'
"""


@pytest.fixture(scope="module")
def enrolled(machine: Machine) -> Iterator[Machine]:
    shell(machine, f"set -e\n{ENROL}", timeout_seconds=1800)
    lab(machine, "image", "load", "/var/tmp/images.tar")
    yield machine
    shell(machine, f"set -e\n{DISMISS}")


@pytest.fixture(autouse=True)
def _leaves_nothing(enrolled: Machine) -> Iterator[None]:
    yield
    assert enrolled.run(LEFT).stdout == ""


def lab(machine: Machine, *words: str, code: int = 0, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run lab to its end as the user, in a login session of its own, as over ssh."""
    done = machine.run(
        "./bootstrap", "lab", *words, user=USER, directory=CHECKOUT, own_session=True,
        **{"timeout_seconds": 3600, **options},
    )  # fmt: skip
    assert done.returncode == code, f"lab {' '.join(words)}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    assert "Traceback" not in done.stderr, done.stderr
    return done


def run_of(machine: Machine) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The only run below OUT, and its samples."""
    run = json.loads(shell(machine, f"cat {OUT}/*/run.json"))
    return run, [json.loads(line) for line in shell(machine, f"cat {OUT}/*/samples.jsonl").splitlines()]


def test_doctor_finds_limits_and_kvm_for_whoever_may_not_become_root(enrolled: Machine) -> None:
    refused = enrolled.run("sudo -n true", user=USER, own_session=True)
    assert refused.returncode != 0
    told = json.loads(lab(enrolled, "doctor", "--on", BACKENDS, "--json=-").stdout)
    assert told["usable"]
    assert told["accelerator"] == "kvm", told["accelerator_note"]
    checks = {check["name"]: check["ok"] for check in told["checks"]}
    assert checks["limits"]
    assert checks["subordinate ids"]


@pytest.mark.parametrize("backend", ["process", "container"])
def test_what_takes_more_memory_than_it_may_is_killed(enrolled: Machine, backend: str) -> None:
    words = ("run", "--on", backend, "-m", "64M", APPLICATION, "--", "sh", "-c")
    assert lab(enrolled, *words, "echo some | tail -1").stdout == "some\n"
    if backend == "container":
        assert lab(enrolled, *words, "cat /sys/fs/cgroup/memory.max").stdout.split() == [str(64 << 20)]
    lab(enrolled, *words, "exec tail /dev/zero", code=137)


def test_the_verbs(enrolled: Machine) -> None:
    build = f"mkdir -p {HOME}/derived && printf 'FROM {APPLICATION}\\nUSER 33\\n' > {HOME}/derived/Dockerfile"
    shell(enrolled, build, user=USER, own_session=True)
    lab(enrolled, "build", f"{HOME}/derived", "-t", "derived")
    for backend in ("container", "microvm"):
        lab(enrolled, "run", "-d", "--wait", "-p", "8080:5000", "--name", "web", "--on", backend, "derived")
        assert "Hello" in shell(enrolled, f".venv/bin/python -c '{GET}' http://127.0.0.1:8080/")
        typed = lab(enrolled, "exec", "-it", "web", "--", "sh", "-c", "tty; id -u", terminal=True)
        assert "/dev/" in typed.stdout
        assert "web" in lab(enrolled, "ps").stdout
        lab(enrolled, "stop", "web")
        lab(enrolled, "rm", "web")


def test_the_main_job(enrolled: Machine) -> None:
    shell(enrolled, f"rm -rf {OUT}")
    lab(enrolled, "compare", APPLICATION, "--on", BACKENDS, "--metrics", "boot,memory", "--blocks", "1",
        "--out", str(OUT))  # fmt: skip
    run, samples = run_of(enrolled)
    assert run["host"]["rootless"]
    assert run["settings"]["limits_left_out"] == []
    accelerators = {arm["backend"]: arm["accelerator"] for arm in run["arms"]}
    assert accelerators == {"process": "native", "container": "native", "microvm": "kvm", "vm": "kvm"}
    for backend in BACKENDS.split(","):
        seen = {one["quantity"] for one in samples if one["backend"] == backend and one["status"] == "ok"}
        assert {"boot.total", "memory.pss", "memory.cgroup.usage"} <= seen, backend
    assert shell(enrolled, f"find {OUT} ! -user {USER}") == ""


def test_a_death_for_want_of_memory_is_counted(enrolled: Machine) -> None:
    shell(enrolled, f"rm -rf {OUT}; mkdir -p {HOME}/hungry", user=USER, own_session=True)
    for name, text in (("Dockerfile", HUNGRY.format(image=APPLICATION)), ("scenario.toml", SCENARIO)):
        done = enrolled.run(f"cat > {HOME}/hungry/{name}", user=USER, own_session=True, stdin=text.encode())
        assert done.returncode == 0
    enrolled.run(
        "./bootstrap", "lab", "compare", f"{HOME}/hungry", "--on", "container", "--blocks", "1", "--out", str(OUT),
        user=USER, directory=CHECKOUT, own_session=True, timeout_seconds=3600,
    )  # fmt: skip
    _, samples = run_of(enrolled)
    failed = [one for one in samples if one["status"] != "ok"]
    assert any("memory" in json.dumps(one) for one in failed), samples[:5]


@pytest.mark.parametrize(
    "words",
    [
        ("isolation", "--on", "process,container"),
        ("density", APPLICATION, "--on", "container", "--up-to", "3", "--out", str(OUT)),
        ("noisy", APPLICATION, "--on", "container", "--kind", "cpu", "--blocks", "1", "--out", str(OUT)),
    ],
    ids=["isolation", "density", "noisy"],
)
def test_a_study(enrolled: Machine, words: tuple[str, ...]) -> None:
    shell(enrolled, f"rm -rf {OUT}")
    lab(enrolled, *words)
