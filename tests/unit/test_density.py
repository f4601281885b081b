"""How memory and time grow with the number of copies, and what is said of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from studies import density_run, density_sample
from typer.testing import CliRunner

from lab.analysis.loaded import load
from lab.commands.measuring import copies_at_once
from lab.errors import UsageError
from lab.reports.page import article
from lab.results.store import RunFolder
from lab.studies.density.analyse import growth
from lab.studies.density.report import REPORT, describe
from lab.studies.registry import study_of


def curve(values: list[float], unit: str = "bytes") -> pd.DataFrame:
    return pd.DataFrame({"block": range(1, len(values) + 1), "value": values, "unit": unit})


@settings(deadline=None)
@given(st.floats(1, 1e9), st.floats(1, 1e8), st.integers(10, 60))
def test_a_line_is_a_line(first: float, step: float, copies: int) -> None:
    found = growth("a", "density.charged", curve([first + step * n for n in range(copies)]))
    assert found.per_copy == pytest.approx(step, rel=1e-3, abs=1e-6 * first)
    assert found.trend
    assert 2 / 3 <= found.bend <= 1.5
    assert "in a line" in str(found)


def test_what_bends_is_said_to() -> None:
    assert "ever faster" in str(growth("a", "q", curve([float(n * n) for n in range(1, 41)])))
    assert "ever slower" in str(growth("a", "q", curve([float(np.sqrt(n)) * 1e6 for n in range(1, 41)])))


def test_scatter_is_no_growth() -> None:
    values = np.random.default_rng(1).normal(0.05, 0.01, 40).tolist()
    assert "no growth" in str(growth("a", "density.start", curve(values, "seconds")))


def test_few_copies_tell_nothing() -> None:
    assert "too few" in str(growth("a", "q", curve([1.0, 2.0])))


def test_the_report_says_how_many_stood_and_what_ended_it(tmp_path: Path) -> None:
    loaded = load(density_run(tmp_path).path)
    assert study_of(loaded.run.settings).kind == "density"
    text = article.markdown(describe(loaded))
    for words in (
        "| **container**<br>native | 12 | the floor of free memory |",
        "4.77 MiB",
        "| **container** | 4 | 200 ms | 50.0 ms |",
        "| **container** | 8 | failed: copy 3 did not answer | – |",
        "What you may not conclude",
        "| **vm**<br>TCG emulation | 0 | not measured |",
    ):
        assert words in text, words
    names = {path.name for path in REPORT.write(loaded.path)}
    assert names == {"density.png", "density.svg", "density.csv", "report.md", "report.html"}
    page = (loaded.path / "report.html").read_text()
    for words in (
        "the floor of free memory",
        "4.77 MiB",
        "What you may not conclude",
        "data:text/csv;base64,",
    ):
        assert words in page, words
    assert len(pd.read_csv(loaded.path / "density.csv")) == len(loaded.frame)


def test_lab_report_rebuilds_it(tmp_path: Path) -> None:
    import typer

    from lab.cli.results.report import report

    command = typer.Typer()
    command.command()(report)
    folder = density_run(tmp_path)
    assert CliRunner().invoke(command, [str(folder.path)]).exit_code == 0
    assert (folder.path / "report.md").read_text().startswith("# How many copies")


@pytest.mark.parametrize("text", ["1,x", "0", "-1", "99999"])
def test_bursts_are_numbers(text: str) -> None:
    with pytest.raises(UsageError, match="--burst"):
        copies_at_once("--burst", text, 1)


def test_bursts() -> None:
    assert copies_at_once("--burst", "", 1) == ()
    assert copies_at_once("--burst", "1, 4", 1) == (1, 4)


def test_the_report_says_how_far_ksm_came(tmp_path: Path) -> None:
    folder = density_run(tmp_path)
    assert "KSM" not in article.markdown(describe(load(folder.path)))
    with RunFolder.open(folder.path) as opened:
        opened.update(settings={**opened.run.settings, "host": {"ksm": "on"}})
        for copies, passes in ((1, 3), (2, 2)):
            more = density_sample("density.charged", 5e6, "bytes", copies)
            opened.append(replace(more, detail={"ksm_passes": passes}))
    text = article.markdown(describe(load(folder.path)))
    assert "over all of them twice, but for 1 of 2 that would have taken too long" in text
