"""What is made of a noisy neighbour's observations: slowdowns, what was met, the bound around all, the report."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from studies import noisy_run, noisy_sample

from lab.analysis.loaded import Loaded, load
from lab.errors import LabError, UsageError
from lab.inside import build
from lab.model import Kernel, Limits
from lab.reports.page import article
from lab.results.record import Status
from lab.results.store import RunFolder
from lab.studies.noisy import report
from lab.studies.noisy.analyse import (
    OF_A_MACHINE,
    OTHERWISE,
    REFUSED_BY,
    SAVED_BY,
    Disturbance,
    _met,
    disturbances,
    fallen,
    quiets,
)
from lab.studies.noisy.command import _confined, _kinds
from lab.studies.noisy.measure import (
    MOST_PIDS,
    Bound,
    Confined,
    Neighbour,
    feel_pulse,
    fill,
    observations,
    warm_up,
    without_limits,
)
from lab.studies.registry import study_of

MIB = 1 << 20


@pytest.fixture
def loaded(tmp_path: Path) -> Loaded:
    return load(noisy_run(tmp_path).path)


def find(loaded: Loaded, kind: str, limits: str) -> Disturbance:
    return next(each for each in disturbances(loaded) if (each.kind, each.limits) == (kind, limits))


def test_a_slowdown_has_the_interval_of_its_blocks(loaded: Loaded) -> None:
    hogged = find(loaded, "cpu", "without limits")
    assert hogged.slowdown == pytest.approx(2.0, rel=0.02)
    assert 1.5 < hogged.low < hogged.slowdown < hogged.high < 2.5
    assert hogged.latency == pytest.approx(hogged.slowdown), "ten divided by the rate"
    assert (hogged.survived, hogged.times) == (3, 3)
    assert hogged.host_delay_seconds == pytest.approx(0.003)
    assert hogged.judged is not None
    assert hogged.judged.claim


def test_a_limit_that_holds_leaves_nothing_to_claim(loaded: Loaded) -> None:
    held = find(loaded, "cpu", "with limits")
    assert held.judged is not None
    assert not held.judged.claim


def test_a_victim_that_died_in_some_blocks_is_a_lower_bound_and_never_fast(tmp_path: Path) -> None:
    """Slowed twofold where it lived: without the block in which it died, the slowdown would be that alone."""
    loaded = load(noisy_run(tmp_path).path)
    frame = loaded.frame.copy()
    hogged = frame["detail"].map(lambda each: (each.get("kind"), each.get("limits"))) == ("cpu", "without limits")
    rows = hogged & (frame["quantity"] == "noisy.rate") & (frame["block"] == 1)
    assert rows.sum() == 1
    frame.loc[rows, ["value", "status"]] = [math.nan, "failed"]
    seen = find(replace(loaded, frame=frame), "cpu", "without limits")
    alive = find(loaded, "cpu", "without limits")
    assert (seen.silent, seen.times) == (1, 3)
    assert seen.slowdown >= alive.slowdown * 0.99
    assert "at least" in seen.factor
    frame.loc[hogged & (frame["quantity"] == "noisy.rate"), "value"] *= 4
    faster = find(replace(loaded, frame=frame), "cpu", "without limits")
    assert faster.judged is not None
    assert not faster.judged.is_proven


def test_no_answer_at_all_is_not_left_out(loaded: Loaded) -> None:
    dead = find(loaded, "memory", "without limits")
    assert dead.slowdown == math.inf
    assert dead.survived == 0
    assert not any(letter.isdigit() for letter in dead.says), "no factor can be told"


def test_who_saved_it_is_named_once(loaded: Loaded) -> None:
    assert find(loaded, "cpu", "with limits").met == (SAVED_BY["cpu"],)
    assert find(loaded, "memory", "with limits").met == (SAVED_BY["oom"],)
    assert find(loaded, "memory", "without limits").met == (SAVED_BY["bound oom"],)
    assert len(set(SAVED_BY.values())) == len(SAVED_BY), "a reader can tell them apart"
    assert find(loaded, "cpu", "without limits").met == ()


def test_who_was_refused_by_its_own_kernel_is_told_from_who_met_nothing() -> None:
    refused = {"limits": "with limits", "hits": {}, "aggressor": {"refused": 3}}
    assert _met([refused, refused | {"aggressor": {"refused": 0}}]) == (OTHERWISE,)
    assert _met([refused | {"kind": "full", "machine": True}]) == (REFUSED_BY["full"],)
    assert _met([refused | {"hits": {"pids": 3}}]) == (SAVED_BY["pids"],)
    assert _met([refused | {"aggressor": {"failed": "killed"}}]) == ()


def test_a_machines_limits_are_its_size() -> None:
    machine = {"limits": "with limits", "hits": {}, "machine": True, "aggressor": {"done": 4, "refused": 0}}
    assert _met([machine | {"kind": "cpu"}]) == (OF_A_MACHINE["cpu"],)
    assert _met([machine | {"kind": "memory"}]) == (), "there was time for a part of it alone"
    assert _met([machine | {"kind": "memory", "aggressor": {"refused": 1}}]) == (OF_A_MACHINE["memory"],)
    assert _met([machine | {"kind": "cpu", "hits": {"bound cpu": 2}}]) == (SAVED_BY["bound cpu"],)


def test_a_pair_that_did_not_stand_is_told_and_not_counted(loaded: Loaded) -> None:
    before = len(disturbances(loaded))
    folder = RunFolder.open(loaded.path)
    failed = noisy_sample(4, "quiet", "with limits", "noisy.rate", None, fell=True)
    with folder:
        folder.append(replace(failed, text="no answer within 120 s"))
        folder.finish("done")
    again = load(loaded.path)
    assert len(disturbances(again)) == before
    assert fallen(again) == ["container with limits, block 4: no answer within 120 s"]
    assert any(
        "no answer within 120 s" in point for each in report.describe(again, []).sections for point in each.points
    )


def test_the_report_says_all_of_it(loaded: Loaded) -> None:
    assert study_of(loaded.run.settings).kind == "noisy"
    written = report.REPORT.write(loaded.path)
    assert {path.name for path in written} == {"noisy.png", "noisy.svg", "noisy.csv", "report.md", "report.html"}
    for page in ("report.md", "report.html"):
        text = (loaded.path / page).read_text()
        dead = find(loaded, "memory", "without limits")
        for words in (dead.says, SAVED_BY["cpu"], "0 of 3", "3.00 ms"):
            assert words in text, words


def test_an_engines_programs_are_said_to_be_within_the_bound(loaded: Loaded) -> None:
    assert "own programs" not in report.describe(loaded, []).lead
    with RunFolder.open(loaded.path) as folder:
        folder.update(settings={**folder.run.settings, "engines": ["docker", "podman"]})
        folder.finish("done")
    assert "the own programs of docker and podman within it" in report.describe(load(loaded.path), []).lead


def test_the_bound_leaves_something_to_the_host() -> None:
    limits = fill(Limits())
    bound = Bound.of_this_host(limits)
    assert limits.memory_bytes is not None
    assert bound.limits.memory_bytes is not None
    assert bound.limits.memory_bytes >= 2 * limits.memory_bytes
    assert bound.limits.pids == MOST_PIDS
    assert bound.amount(Neighbour.MEMORY, machine=False) > bound.limits.memory_bytes, "else it would not be exhausted"
    assert bound.amount(Neighbour.FORKS, machine=False) < MOST_PIDS
    assert bound.amount(Neighbour.FULL, machine=False) == 64 * MIB, "a bare process sees the host's /dev/shm"
    assert bound.amount(Neighbour.FULL, machine=True) >= bound.limits.memory_bytes / 2, "a guest's default"
    with pytest.raises(LabError, match="more than half of the free memory"):
        Bound.of_this_host(Limits(memory_bytes=1 << 50))


def test_a_neighbour_that_could_not_begin_is_no_harmless_one(loaded: Loaded) -> None:
    refused = {"hits": {}, "aggressor": {"failed": "disturb: /dev/shm is larger than 67108864 bytes"}}
    folder = RunFolder.open(loaded.path)
    with folder:
        folder.append(
            *(noisy_sample(1, kind, "with limits", "noisy.rate", 990.0, **refused) for kind in ("cpu", "full"))
        )
        folder.finish("done")
    again = load(loaded.path)
    full, cpu = (find(again, kind, "with limits") for kind in ("full", "cpu"))
    assert (full.factor, full.undone, full.times) == ("not disturbed", "/dev/shm is larger than 67108864 bytes", 0)
    assert cpu == find(loaded, "cpu", "with limits"), "that block alone is left out"
    assert "/dev/shm is larger" in article.markdown(report.describe(again, disturbances(again)))


def test_the_victim_alone_is_told_in_absolute_units(loaded: Loaded) -> None:
    alone = [(each.limits, each.rate, each.latency_seconds) for each in quiets(loaded)]
    assert alone == [("without limits", 1000.0, 0.01), ("with limits", 1000.0, 0.01)]


@pytest.mark.parametrize(("rates", "asked"), [([50, 60], 2), ([10, 20, 40, 45, 90], 4), ([0, 0], 1)])
def test_a_victim_is_warm_when_it_gets_no_faster(rates: list[float], asked: int) -> None:
    left = iter(rates)
    warm_up(lambda: next(left))
    assert len(rates) - len(list(left)) == asked


def test_limits_of_the_scenario_come_first() -> None:
    assert fill(Limits(memory_bytes=64 * MIB)) == Limits(memory_bytes=64 * MIB, cpus=1.0, pids=256)


def test_without_limits_a_machine_has_its_size_and_nobody_else_any() -> None:
    """A quota of all processors for User-mode Linux would be more than the bound around it has, which v1 refuses."""
    assert without_limits(Kernel.HOST, 5) == without_limits(Kernel.USER_SPACE, 5) == Limits()
    assert without_limits(Kernel.USER_MODE, 5) == Limits(memory_bytes=5)
    assert without_limits(Kernel.OWN, 5) == Limits(memory_bytes=5, cpus=float(os.cpu_count() or 1))


def test_a_condition_is_chosen_by_a_word() -> None:
    assert _confined("both") == tuple(Confined)
    assert [*_confined("with"), *_confined("without")] == [Confined.BY_LIMITS, Confined.NOT]
    with pytest.raises(UsageError, match="no such condition"):
        _confined("some")


def test_a_load_that_nobody_answered_is_a_failure() -> None:
    rate, latency, survived, woken = observations(None, "refused", False, {"p99": 0.1, "most": 0.2})
    assert (rate.status, rate.value, rate.text) == (Status.FAILED, None, "refused")
    assert latency.status is Status.FAILED
    assert (survived.value, woken.value, woken.detail) == (0.0, 0.1, {"most": 0.2})


def test_the_pulse_is_felt() -> None:
    late = feel_pulse(0.2)
    assert 0 <= late["p99"] <= late["most"]
    assert late["times"] >= 1


@pytest.mark.parametrize("text", ["", "noise", "cpu,disc"])
def test_unknown_kinds_are_named(text: str) -> None:
    with pytest.raises(UsageError, match="no kind of neighbour"):
        _kinds(text)


def test_kinds() -> None:
    assert _kinds("all") == tuple(Neighbour)
    assert _kinds("disk, cpu,disk") == (Neighbour.DISK, Neighbour.CPU)


AMOUNTS = {Neighbour.MEMORY: 8 * MIB, Neighbour.DISK: 2 * MIB, Neighbour.CACHE: 8 * MIB, Neighbour.FORKS: 8}


def test_the_helper_disturbs_for_as_long_as_it_is_told() -> None:
    began = time.monotonic()
    running = {}
    for kind in set(Neighbour) - {Neighbour.RECEIVE, Neighbour.FULL}:
        words = [str(kind), "3", str(AMOUNTS.get(kind, 2)), *(["127.0.0.1"] if kind is Neighbour.SEND else [])]
        running[kind] = subprocess.Popen([build.program(), "disturb", *words], stdout=subprocess.PIPE)
    for kind, process in running.items():
        output, _ = process.communicate(timeout=250)
        told: dict[str, Any] = json.loads(output)
        assert process.returncode == 0
        assert told["kind"] == kind
        assert told["done"] > 0, kind
    assert time.monotonic() - began > 2.9


def test_the_helper_goes_on_when_who_started_it_has_left() -> None:
    """As the runtime of an Engine does, once the command is executed."""
    words = [str(build.program()), "disturb", "memory", "1", str(8 * MIB)]
    leaves = "import os, subprocess, sys, time; subprocess.Popen(sys.argv[1:]); time.sleep(0.3); os._exit(0)"
    done = subprocess.run([sys.executable, "-c", leaves, *words], capture_output=True, check=True, timeout=250)
    assert json.loads(done.stdout)["done"] > 0


@pytest.mark.parametrize(
    "words", ["cpu 1", "cpu 0 1", "cpu 1000 1", "noise 1 1", "forks 1 100000", "send 1 1", "full 1 1"]
)
def test_the_helper_disturbs_no_more_than_it_may(words: str) -> None:
    done = subprocess.run([build.program(), "disturb", *words.split()], capture_output=True, check=False, timeout=250)
    assert done.returncode == 2
    assert done.stderr.startswith(b"disturb: ")
