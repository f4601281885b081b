"""A report never says that something was asked, or answered, of which only less is known."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import pytest
from rich.console import Console
from synthetic import draw_nothing, write_run

from lab.analysis import load
from lab.analysis.readiness import called, leading, until
from lab.model import (
    DoneReadiness,
    Healthcheck,
    HealthReadiness,
    HttpReadiness,
    LogReadiness,
    Milestone,
    Readiness,
    StartedReadiness,
    TcpReadiness,
)
from lab.reports.export.formats import EXPORTS
from lab.reports.figures import charts
from lab.reports.material import Material
from lab.results.store import RunFolder
from lab.studies.compare.report import terminal
from lab.studies.compare.report.document import html, markdown

KINDS: dict[Milestone, Readiness] = {
    Milestone.CORRECT_ANSWER: HttpReadiness(path="/health", body="ok"),
    Milestone.ANSWER: HttpReadiness(),
    Milestone.PORT_OPEN: TcpReadiness(),
    Milestone.LOG_LINE: LogReadiness(pattern="up"),
    Milestone.HEALTHY: HealthReadiness(check=Healthcheck(test=("CMD", "true"))),
    Milestone.STARTED: StartedReadiness(),
    Milestone.DONE: DoneReadiness(),
}
CLAIMS = {
    r"correct (answer|response)": {Milestone.CORRECT_ANSWER},
    r"status and body": {Milestone.CORRECT_ANSWER},
    r"first (answer|response)": {Milestone.ANSWER},
    r"until port open|request until its port": {Milestone.PORT_OPEN},
    r"line in (its|the) log": {Milestone.LOG_LINE},
    r"HEALTHCHECK": {Milestone.HEALTHY},
    r"time until started": {Milestone.STARTED, Milestone.DONE},
    r"exit code 0": {Milestone.DONE},
}
"""What only a run that was waited for so may say."""


def run_until(folder: Path, milestone: Milestone) -> Path:
    """A made-up run, all of whose instances were waited for like that; of a batch job the job too."""
    readiness = KINDS[milestone]
    made: RunFolder = write_run(folder)
    raw = json.loads((made.path / "run.json").read_text())
    raw["settings"] |= {
        "readiness": {"kind": type(readiness).__name__, **dataclasses.asdict(readiness)},
        "until": str(milestone),
    }
    (made.path / "run.json").write_text(json.dumps(raw))
    lines = []
    for line in (made.path / "samples.jsonl").read_text().splitlines():
        sample = json.loads(line)
        lines.append(line)
        if milestone is Milestone.DONE and sample["quantity"] == "boot.total":
            job = {"metric": "job"}
            lines += [json.dumps(sample | job | {"quantity": name}) for name in ("job.total", "job.seconds")]
    (made.path / "samples.jsonl").write_text("\n".join(lines) + "\n")
    return made.path


def texts_of(folder: Path) -> dict[str, str]:
    """All that a reader of the run sees: page, Markdown, terminal, what pictures say, a table for other programs."""
    material = Material.read(folder)
    drawn = list(charts(material))
    EXPORTS["csv"](material, folder)
    console = Console(record=True, width=100, highlight=False, file=(folder / "said").open("w"))
    terminal.show(folder, console)
    page = re.sub(r'href="data:[^"]*"|src="data:[^"]*"', "", html(material, drawn))
    return {
        "page": page,
        "markdown": markdown(material, drawn),
        "terminal": console.export_text(),
        "summary.csv": (folder / "summary.csv").read_text(),
        **{each.name: repr(each.chart) for each in drawn},
    }


@pytest.mark.parametrize("milestone", list(Milestone))
def test_no_report_claims_more_than_was_seen(
    milestone: Milestone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw_nothing(monkeypatch)
    folder = run_until(tmp_path, milestone)
    told = texts_of(folder)
    for claim, allowed in CLAIMS.items():
        if milestone not in allowed:
            found = {
                name: text[max(0, match.start() - 60) : match.end()]
                for name, text in told.items()
                if (match := re.search(claim, text))
            }
            assert not found, f"{claim}: {found}"
    for name in ("page", "markdown", "terminal"):  # and it does say what was seen
        assert str(milestone) in told[name], name


@pytest.mark.parametrize("milestone", list(Milestone))
def test_an_older_run_is_called_by_what_its_readiness_says(milestone: Milestone, tmp_path: Path) -> None:
    """Before runs recorded it, a readiness of none meant that the execve was enough."""
    folder = run_until(tmp_path, milestone)
    raw = json.loads((folder / "run.json").read_text())
    del raw["settings"]["until"]
    if milestone is Milestone.STARTED:
        raw["settings"]["readiness"] = None
    (folder / "run.json").write_text(json.dumps(raw))
    run = load(folder).run
    assert until(run) is milestone
    known = called(leading(run), run)
    assert known is not None
    assert known.key
