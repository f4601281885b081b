"""A run's starts as trace events: what the format asks for, and that the phases are those that were measured."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
from synthetic import ARMS, keep_only, write_run
from typer.testing import CliRunner

from lab.cli.app import app
from lab.errors import ResultsError
from lab.reports.export.traceevents import trace
from lab.reports.material import Material, stamp
from lab.results.store import RunFolder

Event = dict[str, Any]
Thread = tuple[int, int]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return write_run(tmp_path_factory.mktemp("results"))


@pytest.fixture(scope="module")
def told(run: RunFolder) -> dict[str, Any]:
    """What `lab report --format trace` writes."""
    done = CliRunner().invoke(app, ["report", str(run.path), "--format", "trace"])
    assert done.exit_code == 0, done.output
    assert str(run.path / "trace.json") in done.stdout
    found: dict[str, Any] = json.loads((run.path / "trace.json").read_text(), parse_constant=pytest.fail)
    return found


def threads(told: dict[str, Any]) -> dict[Thread, list[Event]]:
    """What each start has, in the order of the file; names and order of the picture left out."""
    found: dict[Thread, list[Event]] = defaultdict(list)
    for event in told["traceEvents"]:
        if event["ph"] != "M":
            found[event["pid"], event["tid"]].append(event)
    return found


def named(told: dict[str, Any], what: str) -> dict[Thread, str]:
    return {(e["pid"], e["tid"]): e["args"]["name"] for e in told["traceEvents"] if e["name"] == what}


def test_every_event_is_one_of_the_format(told: dict[str, Any]) -> None:
    for event in told["traceEvents"]:
        assert isinstance(event["pid"], int)
        assert isinstance(event["tid"], int)
        match event["ph"]:
            case "X":
                assert event["ts"] >= 0
                assert event["dur"] >= 0
            case "i":
                assert event["s"] == "t"
                assert event["ts"] >= 0
            case phase:
                assert phase == "M"
                assert event["args"]


def test_a_process_is_an_arm_with_what_executes_it_and_a_thread_is_one_of_its_instances(
    run: RunFolder, told: dict[str, Any]
) -> None:
    material = Material.read(run.path)
    arms = {pid: name for (pid, _), name in named(told, "process_name").items()}
    assert set(arms.values()) == {f"{arm.label} ({stamp(arm)})" for arm in material.loaded.all_arms}
    assert len(arms) == len(ARMS)
    boots = material.loaded.frame.query("quantity == 'boot.total'")
    instances = {
        (arms[pid].partition(" ")[0], name.split(": ")[1]) for (pid, _), name in named(told, "thread_name").items()
    }
    assert instances == set(zip(boots["arm"], boots["instance"], strict=True))
    numbers = [tid for _, tid in named(told, "thread_name")]
    assert len(set(numbers)) == len(numbers)
    assert set(numbers).isdisjoint(arms)
    assert all("TCG" in name for name in arms.values() if name.startswith(("vm", "microvm")))


def test_the_phases_of_a_start_follow_each_other_and_add_up_to_its_time(run: RunFolder, told: dict[str, Any]) -> None:
    material = Material.read(run.path)
    names = named(told, "thread_name")
    frame = material.loaded.frame.set_index(["instance", "quantity"])["value"]
    checked = 0
    for thread, events in threads(told).items():
        spans = [event for event in events if event["ph"] == "X"]
        if not spans:
            continue
        whole, *phases = spans
        at = 0.0
        for phase in phases:
            assert phase["ts"] == pytest.approx(at, abs=0.002)
            at = phase["ts"] + phase["dur"]
        assert whole["ts"] == 0
        assert whole["dur"] == pytest.approx(at, abs=0.002)
        instance = names[thread].split(": ")[1]
        assert whole["dur"] == pytest.approx(1e6 * frame[instance, "boot.total"], abs=0.5)
        assert whole["name"] == material.label("boot.total")
        for phase in phases:
            assert phase["name"] == material.label(phase["args"]["quantity"])
            assert phase["dur"] == pytest.approx(1e6 * frame[instance, phase["args"]["quantity"]], abs=0.002)
        checked += 1
    assert checked > 20


def test_a_start_that_failed_says_so_and_has_no_time(told: dict[str, Any]) -> None:
    names = named(told, "thread_name")
    failed = {names[thread]: events for thread, events in threads(told).items() if events[0]["ph"] == "i"}
    assert len(failed) == 2
    assert {event["name"] for events in failed.values() for event in events} == {"failed", "timeout"}
    assert all(len(events) == 1 and events[0]["args"]["why"] for events in failed.values())


def test_warm_ups_are_marked(told: dict[str, Any]) -> None:
    names = named(told, "thread_name")
    for thread, events in threads(told).items():
        assert {event["cat"] for event in events} == {"warm-up" if names[thread].startswith("warm-up") else "start"}
    assert any(name.startswith("warm-up") for name in names.values())


def test_it_says_of_which_host_it_is(run: RunFolder, told: dict[str, Any]) -> None:
    said = told["otherData"]
    assert said["run"] == run.run.name
    assert "vm: TCG emulation" in said["accelerators"]
    assert said["emulated host"] == "no"


def test_a_run_that_timed_no_start_is_refused(tmp_path: Path) -> None:
    folder = write_run(tmp_path)
    keep_only(folder, lambda sample: sample["metric"] == "memory")
    with pytest.raises(ResultsError, match="timed no start") as caught:
        trace(Material.read(folder.path), tmp_path)
    assert "lab compare" in caught.value.hint
    assert not (tmp_path / "trace.json").exists()
