"""Conditions for continuous integration, the difference of two runs, and ``lab results``."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st
from synthetic import write_run
from typer.testing import CliRunner

from lab.analysis.loaded import Loaded, load
from lab.analysis.questions.conditions import Condition, Outcome, judge, parse
from lab.analysis.questions.difference import difference
from lab.cli.results.diff import diff
from lab.cli.results.report import report
from lab.cli.results.results import app
from lab.commands.options.conditions import check, read
from lab.errors import ResultsError, UsageError
from lab.results.store import RunFolder


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return write_run(tmp_path_factory.mktemp("results"))


@pytest.fixture(scope="module")
def loaded(run: RunFolder) -> Loaded:
    return load(run.path)


def slower(folder: Path, factor: float, *, host: str = "", arm: str = "microvm") -> RunFolder:
    """Another run like it, whose ``arm`` boots ``factor`` times as slowly."""
    made = write_run(folder)
    file = made.path / "samples.jsonl"
    lines = []
    for line in file.read_text().splitlines():
        sample = json.loads(line)
        if sample["quantity"] == "boot.total" and sample["value"] is not None and sample["arm"].startswith(arm):
            sample["value"] *= factor
        lines.append(json.dumps(sample))
    file.write_text("\n".join(lines) + "\n")
    if host:
        text = json.loads((made.path / "run.json").read_text())
        text["host"]["identity"] = host
        (made.path / "run.json").write_text(json.dumps(text))
    return made


# Conditions


def test_a_condition_is_read() -> None:
    assert parse(" boot.ratio( container ,process)>2 ") == Condition(
        function="ratio",
        text="boot.ratio( container ,process)>2",
        quantity="boot.total",
        first="container",
        second="process",
        comparison=">",
        number=2.0,
        unit="",
    )
    median = parse("memory.cgroup.usage.median(container#aa) <= 1.5G")
    assert (median.quantity, median.first, median.second) == ("memory.cgroup.usage", "container#aa", "")
    assert (median.comparison, median.number, median.unit) == ("<=", 1.5, "G")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "boot > 2",
        "boot.ratio(a) > 2",
        "boot.median(a, b) > 2",
        "boot.ratio(a, b) > 2s",
        "boot.ratio(a, b) == 2",
        "boot.mean(a) > 2",
        "boot.ratio(a, b) > two",
    ],
)
def test_what_is_no_condition_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--fail-if") as caught:
        parse(text)
    assert "boot.ratio(container, process) > 2" in caught.value.hint


@given(
    st.from_regex(r"[a-z]{1,6}(\.[a-z0-9_]{1,6}){0,2}", fullmatch=True),
    st.from_regex(r"[a-z]{1,8}(#aa)?", fullmatch=True),
    st.sampled_from([">", ">=", "<", "<="]),
    st.floats(0, 1e6),
)
def test_every_condition_that_is_written_is_read(quantity: str, arm: str, comparison: str, number: float) -> None:
    found = parse(f"{quantity}.ratio({arm}, process) {comparison} {number}")
    assert (found.first, found.comparison, found.number) == (arm, comparison, number)
    assert found.quantity.startswith(quantity)


@pytest.mark.parametrize(
    ("text", "outcome"),
    [
        ("boot.ratio(microvm, process) > 2", Outcome.HOLDS),
        ("boot.ratio(microvm, process) < 2", Outcome.NOT),
        ("boot.ratio(microvm, process) > 20", Outcome.PERHAPS),
        ("boot.median(microvm) > 500ms", Outcome.HOLDS),
        ("boot.median(microvm) > 1min", Outcome.NOT),
        ("memory.median(process) < 1G", Outcome.HOLDS),
        ("cpu.idle.median(process) < 1", Outcome.HOLDS),
    ],
)
def test_only_a_whole_interval_fails_a_build(loaded: Loaded, text: str, outcome: Outcome) -> None:
    assert judge(parse(text), loaded).outcome is outcome


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("smell.ratio(vm, process) > 1", "no smell"),
        ("boot.ratio(jail, process) > 1", "no backend jail"),
        ("boot.median(vm) > 1M", "in seconds, not M"),
    ],
)
def test_what_a_run_lacks_is_said(loaded: Loaded, text: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        judge(parse(text), loaded)


def test_only_what_holds_ends_a_command_with_one(run: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    assert check(read(["boot.ratio(microvm, process) > 999", "boot.ratio(microvm, process) > 2"]), run.path)
    assert not check(read(["boot.ratio(microvm, process) > 20"]), run.path)
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 3
    assert "does not hold" in said[0]
    assert "but not for all of its interval" in said[2]
    assert not check([], run.path)


def test_lab_report_takes_conditions(run: RunFolder) -> None:
    command = typer.Typer()
    command.command()(report)
    wanted = [str(run.path), "--format", "md", "--fail-if", "boot.ratio(microvm, process) > 2"]
    assert CliRunner().invoke(command, wanted).exit_code == 3


# The difference of two runs


def test_what_changed_is_found_and_nothing_else(run: RunFolder, tmp_path: Path) -> None:
    found = difference(load(run.path), load(slower(tmp_path, 3.0, arm="container").path))
    changed = found.table[found.table["claim"]]
    assert changed[["quantity", "arm"]].to_numpy().tolist() == [["boot.total", "container"]]
    assert changed["ratio"].iloc[0] == pytest.approx(3.0)
    assert found.unlike == ()


def test_slower_than_where_it_did_not_fail_is_no_change(run: RunFolder, tmp_path: Path) -> None:
    """A microvm timed out in the earlier run, and counts as longer than all that answered."""
    table = difference(load(run.path), load(slower(tmp_path, 3.0).path)).table
    row = table[(table["quantity"] == "boot.total") & (table["arm"] == "microvm")].iloc[0]
    assert row["low"] > 1
    assert row["verdict"] == "not proven"
    assert "failed at times" in row["why"]


def test_a_run_does_not_differ_from_itself(loaded: Loaded) -> None:
    found = difference(loaded, loaded)
    assert not found.table["claim"].any()
    np.testing.assert_allclose(found.table["ratio"].dropna(), 1.0)


def test_other_hosts_are_refused_or_labelled(run: RunFolder, tmp_path: Path) -> None:
    other = load(slower(tmp_path, 1.0, host="elsewhere").path)
    with pytest.raises(ResultsError, match="different hosts"):
        difference(load(run.path), other)
    found = difference(load(run.path), other, across_hosts=True)
    assert "hosts differ" in found.unlike[0]


def test_one_installation_on_other_processors_is_another_host(run: RunFolder, tmp_path: Path) -> None:
    before, cpu = load(run.path), {"model": "AMD EPYC 7B13", "online": 2}
    before = replace(before, run=replace(before.run, host={**before.run.host, "cpu": cpu}))
    moved = replace(before.run, host={**before.run.host, "cpu": {**cpu, "model": "Intel Xeon"}})
    after = replace(before, run=moved)
    with pytest.raises(ResultsError, match="different hosts: 2 × AMD EPYC 7B13 before, 2 × Intel Xeon after"):
        difference(before, after)
    assert "2 × Intel Xeon after" in difference(before, after, across_hosts=True).unlike[0]
    assert difference(before, before).unlike == ()


def test_times_of_different_things_are_not_compared(run: RunFolder) -> None:
    before = load(run.path)
    after = replace(before, run=replace(before.run, settings={**before.run.settings, "until": "port open"}))
    with pytest.raises(ResultsError, match="port open"):
        difference(before, after)


def test_the_command_prints_both(run: RunFolder, tmp_path: Path) -> None:
    command = typer.Typer()
    command.command()(diff)
    other = slower(tmp_path, 3.0, arm="container")
    text = CliRunner().invoke(command, [str(run.path), str(other.path)]).stdout
    assert "1 of " in text
    assert "changed" in text
    rows = json.loads(CliRunner().invoke(command, [str(run.path), str(other.path), "--json=-"]).stdout)["rows"]
    assert sum(row["claim"] for row in rows) == 1


# lab results


def told(*words: str) -> str:
    done = CliRunner().invoke(app, list(words), catch_exceptions=False)
    assert done.exit_code == 0
    return done.stdout


def test_runs_are_listed_shown_and_removed(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken/run.json").write_text("{")
    listed = told("ls", "--results", str(tmp_path))
    assert run.path.name in listed
    (entry,) = json.loads(told("ls", "--json=-", "--results", str(tmp_path)))
    assert entry["backends"] == ["process", "container", "microvm", "vm"]
    assert entry["size_bytes"] > 1000
    assert "container" in told("show", run.path.name, "--results", str(tmp_path))
    assert json.loads(told("show", "--json=-", "--results", str(tmp_path)))["name"] == run.path.name
    with RunFolder.open(run.path) as writing:
        writing.lock()
        with pytest.raises(ResultsError, match="another lab is writing"):
            CliRunner().invoke(app, ["rm", run.path.name, "--results", str(tmp_path)], catch_exceptions=False)
    assert told("rm", run.path.name, "--results", str(tmp_path)) == f"{run.path.name}\n"
    assert not run.path.exists()


def test_nothing_measured_yet_is_no_error(tmp_path: Path) -> None:
    assert told("ls", "--results", str(tmp_path)) == ""
