"""The matrix of scenarios and backends as a table and a page; what a trial allows; the page in docs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from lab.backends.registry import available
from lab.cli.images.matrix import matrix
from lab.errors import LabError, UsageError
from lab.experiment.compatibility import looked_at, more_room
from lab.experiment.scenarios import scenario
from lab.model import Accelerator, Limits
from lab.reports import compatibility
from lab.results.compatibility import Cell, Matrix, Outcome, Step

CELL = Cell(
    scenario="web", backend="process", outcome=Outcome.WORKS, accelerator=Accelerator.NATIVE, ready_seconds=0.1
)
SLOW = replace(CELL, backend="vm", outcome=Outcome.BUT, reasons=("it is emulated",), accelerator=Accelerator.TCG)
DEAD = replace(
    CELL, scenario="job", outcome=Outcome.FAILS, failed_at=Step.CHECK, reasons=("x | y <z>",), ready_seconds=None
)
HOST = {
    "distribution": "Debian", "kernel_release": "6.1", "memory": {"total_bytes": 1 << 30}, "cpu": {"online": 2},
}  # fmt: skip
FOUND = Matrix(
    started="2026-11-28T00:00:00+00:00",
    command_line=("lab", "scenario", "matrix", "web", "job"),
    scenarios=("web", "job"),
    backends=("process", "vm"),
    checks={"web": "each answer", "job": "its end"},
    cells=(CELL, SLOW, DEAD),
    host=HOST,
    versions={"lab": "0.2.0"},
    complete=False,
)


def test_a_cell_names_its_reasons_by_numbers_that_the_legend_explains() -> None:
    head, web, job = compatibility.table(FOUND)
    assert head == ["scenario", "process", "vm"]
    assert web[1] == "works"
    legend = dict(line.split("  ", 1) for line in compatibility.legend(FOUND))
    assert legend[web[2].split()[-1]] == "it is emulated"
    assert "check" in legend[job[1].split()[-1]]
    assert job[2] == "–", "nobody came to it"


def test_outcomes_are_counted() -> None:
    told = compatibility.summary(FOUND)
    assert [int(word) for word in told.split() if word.isdigit()] == [3, 2, 1, 1]


def test_the_page_is_a_table_whatever_a_reason_holds() -> None:
    text = compatibility.markdown(FOUND)
    rows = [line for line in text.splitlines() if line.startswith(("| web", "| job"))]
    assert all(line.replace("\\|", "").count("|") in (3, 4) for line in rows)
    assert "x \\| y &lt;z>" in text
    assert "2026-11-28" in text
    assert "lab scenario matrix web job\n" in text
    assert "1 GiB" in text


def test_json_has_each_cell() -> None:
    told = FOUND.as_json()
    assert [each["scenario"] for each in told["cells"]] == ["web", "web", "job"]
    assert told["complete"] is False


def test_only_what_has_limits_is_tried_with_wider_ones() -> None:
    assert more_room(Limits(cpus=1.0)) is None
    wider = more_room(Limits(memory_bytes=1 << 20, cpus=1.0, pids=8))
    assert wider == Limits(memory_bytes=4 << 20, cpus=1.0)


@pytest.mark.parametrize("name", scenario.names())
def test_of_every_scenario_it_is_said_what_is_looked_at(name: str) -> None:
    found = scenario.load(name)
    told = looked_at(found)
    assert (found.work is None) == ("work" not in told)


def test_bad_input_is_refused_before_anything_runs(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not a duration"):
        matrix(timeout="soon")
    with pytest.raises(LabError, match="no folder"):
        matrix(markdown=tmp_path / "nowhere" / "matrix.md")


def test_the_page_in_docs_knows_the_scenarios_and_backends_that_there_are() -> None:
    lines = (Path(__file__).parents[2] / "docs" / "matrix.md").read_text().splitlines()
    first = next(place for place, line in enumerate(lines) if line.startswith("| scenario |"))
    backends = [word.strip() for word in lines[first].strip("|").split("|")][1:]
    rows = [line.split("|")[1].strip() for line in lines[first + 2 : lines.index("", first)]]
    assert set(backends) <= {kind.name for kind in available()}
    assert set(rows) <= set(scenario.names())
    assert rows
