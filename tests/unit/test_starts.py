"""Percentiles of many starts, their intervals, and what is said of them."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from studies import starts_run
from typer.testing import CliRunner

from lab.analysis import load as load_run
from lab.analysis.loaded import load
from lab.cli.app import app
from lab.commands.measuring import copies_at_once
from lab.errors import UsageError
from lab.reports.page import article
from lab.studies.starts.analyse import START, percentile, taken
from lab.studies.starts.report import REPORT


@pytest.mark.parametrize(("share", "n"), [(0.5, 20), (0.5, 101), (0.95, 100), (0.95, 400), (0.99, 500)])
def test_the_interval_holds_the_percentile_as_often_as_it_says(share: float, n: int) -> None:
    """Of 2,000 runs of a skewed distribution; order statistics are discrete, so it is held a little more often."""
    chance = np.random.default_rng(3)
    real = -math.log(1 - share)
    found = [percentile(chance.exponential(1.0, n), share) for _ in range(2000)]
    too_high = sum(each.low > real for each in found) / len(found)
    too_low = sum(each.high < real for each in found) / len(found)
    assert max(too_high, too_low) < 0.036, "2.5 % on either side, and what chance adds"
    assert too_high + too_low > 0.005, "and it is no wider than it has to be"


def test_it_is_an_order_statistic_and_needs_enough_beyond_it() -> None:
    values = np.arange(1.0, 301.0)
    assert percentile(values, 0.5).value == 150
    assert percentile(values, 0.95).value == 285
    assert percentile(values, 0.99).value == 297
    assert math.isnan(percentile(values[:299], 0.99).value), "p99 is told from 300 on"
    assert math.isnan(percentile(values[:59], 0.95).value), "p95 from 60"
    assert percentile(values[:60], 0.95).value == 57
    few = percentile(values, 0.99)
    assert few.low < few.value
    assert math.isnan(few.high), "among 300 there may be none beyond it"
    assert not math.isnan(percentile(np.arange(400.0), 0.99).high)


def test_what_failed_is_slower_than_what_succeeded() -> None:
    values = np.arange(1.0, 91.0)
    assert percentile(values, 0.5, failed=10).value == 50, "the 50th of 100"
    assert math.isnan(percentile(values, 0.95, failed=10).value), "is one of those that never came up"
    assert percentile(values, 0.95, failed=0).value == 86


def test_a_run_is_told_by_its_percentiles(tmp_path: Path) -> None:
    folder = starts_run(tmp_path).path
    found = {(each.arm, each.quantity, each.copies): each for each in taken(load(folder))}
    container = found["container", START, 1]
    assert (container.n, container.failed) == (392, 8)
    frame = load_run(folder).frame
    values = frame[(frame["arm"] == "container") & (frame["quantity"] == START)]["value"].dropna().sort_values()
    assert container.at(0.5).value == values.iloc[199]
    assert container.at(0.95).value == values.iloc[379]
    assert math.isnan(container.at(0.99).value), "8 of 400 failed: one of a hundred is among them"
    assert math.isnan(container.slowest)
    assert math.isnan(found["vm", START, 1].at(0.95).value)
    assert found["container", "starts.at_once", 4].failed == 1


def test_the_page_says_what_failed_and_what_is_too_few(tmp_path: Path) -> None:
    folder = starts_run(tmp_path).path
    text = article.markdown(REPORT.describe(load(folder)))
    for words in (
        "8 of 400 failed",
        "1 failed",
        "one each 0.5 s",
        "too few",
        "is one that failed",
        "| **container**<br>native | 4, at once",
    ):
        assert words in text, words
    names = {path.name for path in REPORT.write(folder)}
    assert names == {"starts.png", "starts.svg", "starts.csv", "report.md", "report.html"}
    done = CliRunner().invoke(app, ["report", str(folder)])
    assert done.exit_code == 0
    assert "report.html" in done.output


@pytest.mark.parametrize("text", ["1", "2,x", "0", "-1", "99999"])
def test_crowds_are_numbers(text: str) -> None:
    with pytest.raises(UsageError, match="--at-once"):
        copies_at_once("--at-once", text, 2)


def test_crowds_grow() -> None:
    assert copies_at_once("--at-once", "", 2) == ()
    assert copies_at_once("--at-once", "8, 2", 2) == (8, 2)
