"""A run folder may be a stranger's: nothing is written through its links, and what it garbles is said of it alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from synthetic import write_run
from typer.testing import CliRunner

from lab.analysis.questions.query import query
from lab.cli.results.results import app
from lab.errors import ResultsError
from lab.results.codec import decode_run
from lab.results.store import RunFolder
from lab.studies.compare.report.writer import write

VICTIM = "what somebody else has written\nwithout a last line feed"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return write_run(tmp_path / "results", blocks=3).path


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    path = tmp_path / "victim"
    path.write_text(VICTIM)
    return path


def linked(run: Path, name: str, target: Path) -> None:
    (run / name).parent.mkdir(exist_ok=True)
    (run / name).unlink(missing_ok=True)
    (run / name).symlink_to(target)


@pytest.mark.parametrize("name", [".report.html.tmp", "plots/boot-phases.csv", "plots", "report.md", "samples.tmp"])
def test_no_report_is_written_through_a_link(run: Path, victim: Path, name: str) -> None:
    linked(run, name, victim.parent if name == "plots" else victim)
    before = sorted(victim.parent.iterdir())
    with pytest.raises(ResultsError, match="is a link"):
        write(run)
    assert victim.read_text() == VICTIM
    assert sorted(victim.parent.iterdir()) == before


@pytest.mark.parametrize("act", [lambda folder: folder.lock(), lambda folder: folder.complete(1, "process")])
@pytest.mark.parametrize("name", ["samples.jsonl", "progress.jsonl"])
def test_no_line_is_cut_or_added_through_a_link(
    run: Path, victim: Path, name: str, act: Callable[[RunFolder], None]
) -> None:
    """`lab results rm` locks a run first, and whoever goes on with one cuts a torn last line."""
    linked(run, name, victim)
    with RunFolder.open(run) as folder, pytest.raises(ResultsError, match="is a link"):
        act(folder)
    assert victim.read_text() == VICTIM


def test_a_run_with_links_can_be_removed(run: Path, victim: Path) -> None:
    linked(run, "samples.jsonl", victim)
    done = CliRunner().invoke(app, ["rm", run.name, "--results", str(run.parent)])
    assert done.exit_code == 0, done.output
    assert not run.exists()
    assert victim.read_text() == VICTIM


@pytest.mark.parametrize("text", ['{"schema": Infinity}', "[" * 200_000, '{"schema": 1e999}', '{"schema": {}}'])
def test_what_is_no_run_is_said_to_be_none(text: str) -> None:
    with pytest.raises(ResultsError):
        decode_run(text, "run.json")


def test_an_arm_that_is_none_is_said(run: Path) -> None:
    told = json.loads((run / "run.json").read_text())
    with pytest.raises(ResultsError, match="garbles"):
        decode_run(json.dumps({**told, "arms": ["x"]}), "run.json")


def test_a_sample_that_is_none_is_said(run: Path) -> None:
    with (run / "samples.jsonl").open("a") as file:
        file.write("[" * 200_000 + "\n")
    with pytest.raises(ResultsError, match="is not a sample"):
        list(RunFolder.open(run).samples())


def test_one_strange_run_does_not_keep_the_others_from_being_listed_and_asked(run: Path) -> None:
    strange = write_run(run.parent, blocks=3).path
    told = json.loads((strange / "run.json").read_text())
    told["scenario"] = "\ud800\x1b]52;c;ZXZpbA==\x07"
    (strange / "run.json").write_text(json.dumps(told))
    (strange / "samples.parquet").unlink()
    (run.parent / "not-one").mkdir()
    (run.parent / "not-one/run.json").write_text('{"schema": Infinity}')
    done = CliRunner().invoke(app, ["ls", "--results", str(run.parent)])
    assert done.exit_code == 0
    assert run.name in done.output
    assert strange.name in done.output
    assert "\x1b" not in done.output
    answer = query([run, strange], "select count(distinct run) from samples")
    assert answer.rows == ((2,),)
