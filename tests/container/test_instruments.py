"""lab's figures beside those of other, unrelated tools: the table of docs/instruments.md, held to its bounds.

Each test is named in that table; tests/unit/test_docs_instruments.py keeps the two in step.
"""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import contract
import pytest
from known import PROGRAM, Parts, compile_known, known_image, until_quiet

from lab.backends.site import Site
from lab.host.command import run
from lab.instance import Instance
from lab.metrics.clients import wrk
from lab.metrics.clients.jobs import run_inside
from lab.metrics.memory import ProcessMemory, read_process, read_processes
from lab.model import Load, Phase

MIB = 1 << 20
ROUNDS = 8
"""At most so many are added to what the least is taken of: a busy host only ever makes a time longer."""
BACKENDS = ["process", "container", "runc"]
PARTS = Parts(touch_mib=40, answer_ms=5, answer_burn_ms=2)

pytestmark = [pytest.mark.alone, pytest.mark.nightly]


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with Site.open() as opened:
        yield opened


@pytest.fixture(scope="module", params=BACKENDS)
def instance(
    request: pytest.FixtureRequest, site: Site, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Instance]:
    image, logs = known_image(site.store), tmp_path_factory.mktemp("logs")
    wanted = contract.request(site, image, f"beside-{request.param}", *PARTS.words(), logs=logs)
    with site.backend(request.param).launch(wanted) as launched:
        contract.until_listening(site, launched)
        yield launched


def application(instance: Instance) -> int:
    """Its process on the host: the largest of the instance."""
    return max(instance.cgroup.processes(), key=lambda pid: read_process(pid).rss)


def summed(instance: Instance) -> ProcessMemory:
    return read_processes(instance.cgroup.processes())


def test_start_beside_the_kernels_start_time(instance: Instance) -> None:
    """Field 22 of proc_pid_stat(5), in ticks since the host's boot, is when the application's process was forked."""
    fields = Path(f"/proc/{application(instance)}/stat").read_text().rpartition(")")[2].split()
    tick = 1 / os.sysconf("SC_CLK_TCK")
    forked = int(fields[19]) * tick
    stamps = instance.timeline.stamps()
    assert stamps[Phase.REQUESTED] - tick <= forked <= stamps[Phase.EXECUTED] + tick


def test_whole_command_beside_hyperfine(instance: Instance, tmp_path: Path) -> None:
    """What a longer command takes more than a short one: the way in is part of both. An empty command would not do,
    since runc works on for some 20 ms while the command runs.
    """
    program, report = compile_known(tmp_path / "known"), tmp_path / "hyperfine.json"
    theirs = ours = dict.fromkeys((100, 300), math.inf)
    for _ in range(ROUNDS):
        commands = [f"{program} job delay_ms={delay}" for delay in theirs]
        run(["hyperfine", "-N", "--runs", "5", "--export-json", str(report), *commands], timeout_seconds=250)
        told = [each["times"] for each in json.loads(report.read_text())["results"]]
        theirs = {delay: min(least, *times) for (delay, least), times in zip(theirs.items(), told, strict=True)}
        for _ in range(5):
            ours = {
                delay: min(least, run_inside(instance, [PROGRAM, "job", f"delay_ms={delay}"], 120).seconds)
                for delay, least in ours.items()
            }
        off = abs((ours[300] - ours[100]) - (theirs[300] - theirs[100]))
        if off <= 0.1 * (theirs[300] - theirs[100]):
            break
    assert off <= 0.1 * (theirs[300] - theirs[100]), (ours, theirs)


def test_processor_time_beside_getrusage(instance: Instance) -> None:
    """What the helper inside hears from getrusage(2) about its children, beside what the cgroup was charged."""
    more = []  # the way in: a fork, an execve, a namespace to enter
    while len(more) < ROUNDS and not any(each <= 0.05 for each in more):
        before = instance.cgroup.cpu().total_seconds
        said = json.loads(instance.inside("spin", "0.5", "1").stdout)["cpu_seconds"]
        charged = instance.cgroup.cpu().total_seconds - before
        assert said <= charged * 1.02 + 0.004
        more.append(charged - said - 0.1 * said)
    assert min(more) <= 0.05


def test_processor_time_beside_perf_stat(site: Site, instance: Instance) -> None:
    """perf's count of the task's clock, attached to the application while it answers requests."""
    command = ["perf", "stat", "-x,", "-e", "task-clock", "-p"]
    if subprocess.run([*command, str(os.getpid()), "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("perf(1) is not installed or can't count here")

    def both(_: int) -> None:
        before = instance.cgroup.cpu().total_seconds
        watched = [*command, str(application(instance)), "sleep", "2"]
        with subprocess.Popen(watched, stderr=subprocess.PIPE, text=True) as perf:
            time.sleep(0.3)  # until it has attached itself
            wrk.offer(site.network, instance.address, contract.PORT, Load(connections=1, duration_seconds=1.0))
            said = float(perf.communicate(timeout=250)[1].split(",")[0]) / 1e3
        charged = instance.cgroup.cpu().total_seconds - before
        assert said > 0.1, "2 ms of processor time an answer"
        assert charged == pytest.approx(said, rel=0.1, abs=0.02)

    until_quiet(both)


def test_pss_and_rss_beside_smem(instance: Instance) -> None:
    pids = instance.cgroup.processes()
    lines = run(["smem", "-H", "-c", "pid pss rss"], timeout_seconds=250).stdout.decode().splitlines()
    rows = {int(words[0]): (int(words[1]) << 10, int(words[2]) << 10) for words in map(str.split, lines)}
    ours = summed(instance)
    assert sum(rows[pid][0] for pid in pids) == pytest.approx(ours.pss, abs=MIB)
    assert sum(rows[pid][1] for pid in pids) == pytest.approx(ours.rss, abs=MIB)


def test_mapped_beside_pmap(instance: Instance) -> None:
    pid = application(instance)
    last = run(["pmap", "-d", str(pid)], timeout_seconds=250).stdout.decode().splitlines()[-1]
    private, shared = (int(number) << 10 for number in re.findall(r"(?:private|shared): (\d+)K", last))
    assert private <= read_process(pid).mapped <= private + shared


def test_anonymous_memory_beside_smaps(instance: Instance) -> None:
    """The sum of smaps' Anonymous over its processes, beside memory.cgroup.anon."""
    texts = [Path(f"/proc/{pid}/smaps").read_text() for pid in instance.cgroup.processes()]
    found = [number for text in texts for number in re.findall(r"^Anonymous: +(\d+) kB", text, re.MULTILINE)]
    mapped = sum(int(number) << 10 for number in found)
    assert instance.cgroup.memory().anon_bytes == pytest.approx(mapped, abs=2 * MIB)


def test_requests_beside_ab(site: Site, instance: Instance) -> None:
    """ApacheBench and wrk, one connection each, against an application that answers after 5 ms."""
    url = f"http://{instance.address}:{contract.PORT}/"

    def both(_: int) -> None:
        words = ["ab", "-q", "-k", "-c", "1", "-n", "100", url]
        said = site.network.run_in(lambda: run(words, timeout_seconds=250)).stdout.decode()
        rate = re.search(r"^Requests per second: +([\d.]+)", said, re.MULTILINE)
        median = re.search(r"^ +50% +(\d+)", said, re.MULTILINE)
        assert rate is not None
        assert median is not None
        load = Load(connections=1, duration_seconds=1.0)
        ours = wrk.offer(site.network, instance.address, contract.PORT, load)
        assert ours.requests_per_second == pytest.approx(float(rate[1]), rel=0.25)
        assert ours.latency_seconds["p50"] == pytest.approx(int(median[1]) / 1e3, abs=0.002)

    until_quiet(both)
