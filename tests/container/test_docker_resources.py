"""Docker Engine with lab-oci as its runtime: limits, what is used of them, and what happens at their end."""

from __future__ import annotations

import json
import re
import statistics
from pathlib import Path

import pytest
from dockering import Docker
from oci import until

from lab.host.cgroup.mounted import host

V2 = host().is_v2
FILES = (
    {
        "memory": "memory.max", "reservation": "memory.low", "cpu": "cpu.max", "shares": "cpu.weight",
        "pids": "pids.max",
    }
    if V2
    else {
        "memory": "memory/memory.limit_in_bytes", "reservation": "memory/memory.soft_limit_in_bytes",
        "cpu": "cpu/cpu.cfs_quota_us", "shares": "cpu/cpu.shares", "pids": "pids/pids.max",
    }
)  # fmt: skip
WRITTEN = {"20000": "20000 100000" if V2 else "20000", "512": "20" if V2 else "512"}
EATS = "x=a; while :; do x=$x$x; done"


def limits(*names: str) -> str:
    """A script that shows them from inside."""
    return "; ".join(f"cat /sys/fs/cgroup/{FILES[name]}" for name in names)


def test_limits(docker: Docker) -> None:
    options = ["--memory", "64m", "--memory-reservation", "32m", "--cpu-quota", "20000", "--cpu-shares", "512",
               "--pids-limit", "50"]  # fmt: skip
    said = docker.lines(*options, "--", limits("memory", "reservation", "cpu", "shares", "pids"))
    assert said == [str(64 << 20), str(32 << 20), WRITTEN["20000"], WRITTEN["512"], "50"]


def test_processors(docker: Docker) -> None:
    allowed = Path("/proc/self/status").read_text().partition("Cpus_allowed_list:")[2].split()[0]
    last = re.split(r"[-,]", allowed)[-1]
    assert docker.lines("--cpuset-cpus", last, "--", "sed -n 's/Cpus_allowed_list:\\t//p' /proc/self/status") == [
        last
    ]


def test_cpus(docker: Docker) -> None:
    assert docker.lines("--cpus", "0.2", "--", limits("cpu")) == [WRITTEN["20000"]]


def test_how_likely_it_is_killed(docker: Docker) -> None:
    assert docker.lines("--oom-score-adj", "321", "--", "cat /proc/self/oom_score_adj") == ["321"]


def test_kernel_memory_is_no_limit_any_more(docker: Docker) -> None:
    """The kernel ignores it since 5.16; Docker says so, and the container starts."""
    if V2:
        pytest.skip("Docker does not ask for it on cgroup v2")
    assert docker.lines("--memory", "64m", "--kernel-memory", "50m", "--", limits("memory")) == [str(64 << 20)]


def test_without_the_kernels_killer(docker: Docker) -> None:
    if V2:
        pytest.skip("cgroup v2 has no such switch")
    script = "grep oom_kill_disable /sys/fs/cgroup/memory/memory.oom_control"
    assert docker.lines("--memory", "64m", "--oom-kill-disable", "--", script) == ["oom_kill_disable 1"]


def test_too_much_memory(docker: Docker) -> None:
    """A child is killed first: containerd tells of a lack of memory and of an end by two threads, and Docker forgets
    the former when it hears of the latter before.
    """
    script = f"(sh -c '{EATS}'); read go < /tmp/go; {EATS}"
    limits = ("--memory", "16m", "--memory-swap", "16m")
    name = docker.background(*limits, "--", "sh", "-c", f"mkfifo /tmp/go; {script}")
    docker.until_told(name, "oom")
    docker.ok("exec", name, "sh", "-c", "echo > /tmp/go")
    docker.until(name, "State.Status", "exited")
    assert docker.look(name, "State.ExitCode") == "137"
    assert docker.look(name, "State.OOMKilled") == "true"
    docker.until_told(name, "die 137")


def test_too_much_memory_for_exec(docker: Docker) -> None:
    name = docker.background("--memory", "16m", "--memory-swap", "16m", "--init")
    assert docker("exec", name, "sh", "-c", EATS).code == 137
    assert docker.look(name, "State.Running") == "true"


def test_too_many_processes(docker: Docker) -> None:
    script = "for n in 1 2 3 4 5 6 7 8 9 10 11 12; do sleep 20 & done"
    done = docker.run("--pids-limit", "10", "--", "sh", "-c", script)
    assert "can't fork" in done.err
    assert docker.run("--pids-limit", "100", "--", "sh", "-c", script).err == ""


def test_update(docker: Docker) -> None:
    name = docker.background("--memory", "64m", "--memory-swap", "64m", "--pids-limit", "50")
    docker.ok(
        "update", "--memory", "96m", "--memory-swap", "96m", "--cpu-quota", "20000", "--cpu-shares", "512", name
    )
    docker.ok("update", "--pids-limit", "33", name)
    said = docker.ok("exec", name, "sh", "-c", limits("memory", "cpu", "shares", "pids")).split("\n")
    assert said == [str(96 << 20), WRITTEN["20000"], WRITTEN["512"], "33"]
    docker.ok("update", "--memory", "48m", "--memory-swap", "48m", name)
    assert docker.ok("exec", name, "sh", "-c", limits("memory")) == str(48 << 20)


def test_update_of_processors(docker: Docker) -> None:
    name = docker.background()
    docker.ok("update", "--cpuset-cpus", "0", name)
    status = "sed -n 's/Cpus_allowed_list:\\t//p' /proc/{}/status"
    assert docker.ok("exec", name, "sh", "-c", f"{status.format(1)}; {status.format('self')}").split() == ["0", "0"]


def test_an_update_that_can_not_be(docker: Docker) -> None:
    """Less than it holds: refused with a reason, and the old limit stays."""
    if V2:
        pytest.skip("cgroup v2 reclaims and kills, and refuses nothing")
    name = docker.background("--memory", "64m", "--memory-swap", "64m", "--tmpfs", "/t")
    docker.ok("exec", name, "dd", "if=/dev/zero", "of=/t/x", "bs=1M", "count=30")
    done = docker("update", "--memory", "8m", "--memory-swap", "8m", name)
    assert done.code == 1
    assert "memory" in done.err
    assert docker.ok("exec", name, "sh", "-c", limits("memory")) == str(64 << 20)


def test_update_when_it_does_not_run(docker: Docker) -> None:
    name = docker.name()
    docker.ok("create", "--name", name, "--memory", "64m", "--memory-swap", "64m",
              *docker.words("--", "sh", "-c", limits("memory")))  # fmt: skip
    docker.ok("update", "--memory", "96m", "--memory-swap", "96m", name)
    assert docker.ok("start", "--attach", name) == str(96 << 20)


@pytest.mark.nightly
def test_statistics(docker: Docker) -> None:
    """Its own, not the host's: half a processor's worth, thirty MiB, the processes that there are.

    The Engine divides by what the host did between two readings that are not of one moment: on a slow host one share
    may be any, 199.99 % of a single processor too. So the middle of three is asked.
    """
    script = "dd if=/dev/zero of=/t/x bs=1M count=30 2> /dev/null; echo ready; while :; do :; done"
    name = docker.background("--memory", "64m", "--cpus", "0.5", "--tmpfs", "/t", "--", "sh", "-c", script)
    docker.until_said(name, "ready")
    ask = ("stats", "--no-stream", "--format", "{{json .}}", name)
    *_, shown = told = [json.loads(docker.ok(*ask)) for _ in range(3)]
    assert 5 <= statistics.median(float(each["CPUPerc"].rstrip("%")) for each in told) <= 75
    used, limit = re.findall(r"([\d.]+)MiB", shown["MemUsage"])
    assert 30 <= float(used) <= 45
    assert limit == "64"
    assert shown["PIDs"] == "1"


def test_where_its_group_is(docker: Docker) -> None:
    """Where the daemon was told, and gone when the container is."""
    name = docker.background()
    pid = docker.look(name, "State.Pid")
    full = docker.look(name, "Id")
    line = next(line for line in docker.engine.beside("cat", f"/proc/{pid}/cgroup").split("\n")
                if (line.startswith("0::") if V2 else ":memory:" in line))  # fmt: skip
    group = line.split(":", 2)[2]
    directory = Path(host().mount_of("memory") or "") / group.strip("/")
    assert full in group
    assert directory.is_dir()
    docker.ok("rm", "--force", name)
    until(lambda: not directory.exists(), "the end of its group")
