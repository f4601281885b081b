"""The pages about adding a figure, a command and a scenario: what they tell is done, in a copy, and works."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from pages import ROOT, changed, checkout, follow

from lab.experiment.scenarios import scenario
from lab.model import HttpReadiness, Place

Done = subprocess.CompletedProcess[str]


HELP = "from lab.cli.app import app; app(['--help'], prog_name='lab')"
CONTRACTS = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports())"


def run(copy: Path, *words: str | Path, **environment: str) -> Done:
    """Python in the copy, which comes before the checkout."""
    return subprocess.run(
        [sys.executable, *words],
        cwd=copy,
        env=os.environ | {"PYTHONPATH": str(copy), "LAB_WRITE_PAGES": ""} | environment,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )


def assert_in_style(copy: Path, names: list[str]) -> None:
    """The Python files among them are as ruff wants a tracked file to be."""
    sources = [name for name in names if name.endswith(".py")]
    assert sources
    for words in (["check", "--no-cache"], ["format", "--check", "--no-cache"]):
        done = run(copy, "-m", "ruff", *words, "--config", ROOT / "pyproject.toml", *sources)
        assert done.returncode == 0, done.stdout


def test_a_figure_is_drawn_and_shown_as_the_page_tells(tmp_path: Path) -> None:
    copy = checkout(tmp_path, "lab", "results/sample/run.json", "results/sample/samples.jsonl")
    before = run(copy, "-c", "from lab.reports.figures import plots; print(*(plot.name for plot in plots()))")
    assert "teardown" not in before.stdout.split()
    written = follow("adding-a-figure.md", copy)
    assert len(written) == 4
    assert_in_style(copy, written)
    done = run(copy, "-m", "lab.cli.main", "report", "results/sample")
    assert done.returncode == 0, done.stderr
    sample = copy / "results" / "sample"
    for suffix in ("png", "svg", "csv"):
        assert (sample / "plots" / f"teardown.{suffix}").stat().st_size > 500
    assert 'data-chart="teardown"' in (sample / "report.html").read_text()
    assert "plots/teardown.png" in (sample / "report.md").read_text()
    assert "Time to stop an instance: process" in (sample / "report.md").read_text()


def test_a_command_is_there_as_the_page_tells(tmp_path: Path) -> None:
    copy = checkout(tmp_path, "lab", "docs/commands.md", "tests/unit/test_cli_shape.py")
    assert_in_style(copy, follow("adding-a-command.md", copy))
    shape = ["-m", "pytest", "-q", "-n0", "-p", "no:cacheprovider", "--rootdir", copy, "tests/unit/test_cli_shape.py"]
    of_pages = ("-k", "page or lies_ready or sentence or options_mean")
    stale = run(copy, *shape, *of_pages)
    assert stale.returncode == 1, "the pages don't list it yet"
    written = run(copy, *shape, *of_pages, LAB_WRITE_PAGES="1")
    assert written.returncode == 0, written.stdout
    assert "| `lab quantities` | `--json` | yes |" in (copy / "docs" / "commands.md").read_text()
    lab = ("-m", "lab.cli.main")
    assert "List what lab measures" in run(copy, *lab, "--help").stdout
    listed = run(copy, *lab, "quantities", "teardown").stdout
    assert [line.split()[:2] for line in listed.splitlines()] == [["QUANTITY", "UNIT"], ["teardown.total", "seconds"]]
    assert {each["unit"] for each in json.loads(run(copy, *lab, "quantities", "memory", "--json").stdout)} == {
        "bytes"
    }
    refused = run(copy, *lab, "quantities", "colour")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "no quantities of a metric colour" in refused.stderr
    assert "teardown" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_a_study_is_there_as_the_page_tells(tmp_path: Path) -> None:
    """tests/container/test_study_documented.py measures with it."""
    copy = checkout(tmp_path, "lab", "tools", "pyproject.toml")
    if (known := ROOT / ".mypy_cache").exists():  # test_style has asked mypy just before, where both are run
        shutil.copytree(known, copy / known.name)
    names = follow("adding-a-study.md", copy)
    assert_in_style(copy, names)
    assert "again      Start the same copy again and again." in run(copy, "-c", HELP).stdout
    assert "Starts on each backend." in run(copy, "-m", "lab.cli.main", "again", "-h").stdout
    done = run(copy, "-m", "mypy", "lab/studies/again")
    assert done.returncode == 0, done.stdout
    assert run(copy, "-c", CONTRACTS).returncode == 0
    with (copy / names[-1]).open("a") as file:
        file.write("from lab.studies.again import measure\n")
    assert run(copy, "-c", CONTRACTS).returncode == 1, "measuring and analysing meet only through results"


def test_a_scenario_is_one_as_the_page_tells(tmp_path: Path) -> None:
    """tests/container/test_scenario_documented.py measures it."""
    names = follow("adding-a-scenario.md", tmp_path)
    assert names == ["greeter/Dockerfile", "greeter/greeter.py", "greeter/scenario.toml"]
    found = scenario.load(str(tmp_path / "greeter"))
    assert found.readiness == HttpReadiness(path="/", body="good morning")
    assert found.work is not None
    assert found.work.place is Place.BESIDE
    assert [figure.name for figure in found.work.figures] == ["greetings"]


def test_every_scenario_of_labs_has_what_the_page_asks_for() -> None:
    table = (ROOT / "docs" / "scenarios.md").read_text()
    for name in scenario.names():
        page = (ROOT / "scenarios" / name / "README.md").read_text()
        for section in ("What it measures", "What it teaches", "What you may not conclude"):
            assert f"\n## {section}\n" in page, name
        assert f"(../scenarios/{name}/README.md)" in table


def test_a_difference_adds_lines_where_it_says_and_nowhere_else() -> None:
    assert changed("a\nb\nc\n", " b\n+x\n+y\n", "f") == "a\nb\nx\ny\nc\n"
    assert changed("a\nb\nc\n", "-b\n+x\n c\n+y\n", "f") == "a\nx\nc\ny\n"
    for text, difference in (("a\n", " b\n+x\n"), ("b\nb\n", " b\n+x\n"), ("a\n", "+x\n")):
        with pytest.raises(AssertionError, match="f"):
            changed(text, difference, "f")
