"""Percentiles of many starts, their intervals, and what is said of them."""

from __future__ import annotations

import math
import random
import threading
from collections.abc import Iterator
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from studies import starts_run
from typer.testing import CliRunner

from lab.analysis import load as load_run
from lab.analysis.loaded import load
from lab.cli.app import app
from lab.commands.measuring import copies_at_once
from lab.errors import LabError, UsageError
from lab.metrics.base import Subject
from lab.reports.page import article
from lab.studies.starts.analyse import FORKED, HANDED, MAPPED, START, Memory, had_to_wait, memory, percentile, taken
from lab.studies.starts.command import DOUBLING
from lab.studies.starts.measure import Asked, Starts
from lab.studies.starts.report import REPORT
from lab.studies.starts.stock import Stock


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
    assert found["vm", HANDED, 1].at(0.5).value == 0.004
    assert had_to_wait(load(folder), "vm") == 3
    read, mapped = memory(load(folder))
    seen = (read.arm, read.quantity, read.copies, read.n, read.pss, read.shared, read.private)
    assert seen == ("vm", FORKED, 4, 4, 101.5 * 2**20, 20.0 * 2**20, 91.5 * 2**20)
    assert math.isnan(read.private_later), "nobody looked"
    assert math.isnan(read.saved), "it has read all of it"
    assert mapped == Memory(
        arm="vm", quantity=MAPPED, copies=4, n=4, pss=40 * 2.0**20, shared=60 * 2.0**20, private=30 * 2.0**20,
        pss_later=50 * 2.0**20, shared_later=70 * 2.0**20, private_later=45 * 2.0**20, saved=120 * 2.0**20,
        saved_later=121 * 2.0**20,
    )  # fmt: skip


def test_the_page_says_what_failed_and_what_is_too_few(tmp_path: Path) -> None:
    folder = starts_run(tmp_path).path
    text = article.markdown(REPORT.describe(load(folder)))
    for words in (
        "8 of 400 failed",
        "1 failed",
        "one each 0.5 s",
        "4, restored at once | 500 ms",
        "4, restored at once | 102 MiB | 20.0 MiB | 91.5 MiB | –",
        "4, restored at once, memory mapped | 40.0 MiB<br>50.0 MiB after 60 s more",
        "4, restored at once, memory mapped | 250 ms",
        "it has no CRIU",
        "3 of the requests",
        "too few",
        "is one that failed",
        "| **container**<br>native | 4, at once",
        "Docker; bare fork and exec: about 200 ms",
        "25 copies of one snapshot at once",
    ):
        assert words in text, words
    assert "crun 1.15" not in text, "this run started nothing by crun"
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


class Known:
    """Copies that take no time, but for the first, which fails; what is open and what was ever started."""

    def __init__(self) -> None:
        self.open: list[int] = []
        self.made = 0

    @contextmanager
    def start(self) -> Iterator[Subject]:
        self.made += 1
        number = self.made
        if number == 1:
            raise LabError("it broke")
        self.open.append(number)
        yield cast(Subject, number)
        self.open.remove(number)


def test_a_stock_replaces_what_is_taken_and_keeps_nothing() -> None:
    known = Known()
    with Stock(1, known.start) as stock:
        stock.wait_full()
        broken, _ = stock.take()
        with pytest.raises(LabError):
            broken.get()
        stock.wait_full()
        copy, stood = stock.take()
        assert stood
        assert copy.get() == 2
        stock.wait_full()
        assert known.open == [2, 3]
        copy.stack.close()
        assert known.open == [3]
    assert known.open == []


def test_whoever_finds_a_stock_empty_waits_for_the_next() -> None:
    go_on = threading.Event()

    @contextmanager
    def start() -> Iterator[Subject]:
        go_on.wait(10)
        yield cast(Subject, 1)

    with Stock(1, start) as stock:
        threading.Timer(0.05, go_on.set).start()
        copy, stood = stock.take()
        assert not stood
        copy.stack.close()


def test_nobody_waits_for_a_stock_that_is_closed() -> None:
    go_on = threading.Event()

    @contextmanager
    def start() -> Iterator[Subject]:
        go_on.wait(10)
        yield cast(Subject, 1)

    with ThreadPoolExecutor(1) as threads, Stock(1, start) as stock:
        waiting = threads.submit(stock.take)
        stock.close()
        with pytest.raises(CancelledError):
            waiting.result(5)
        go_on.set()


def test_a_full_host_is_found_by_doubling() -> None:
    """The first crowd that does not fit ends it, and the largest that did comes once more, staggered."""
    asked = Asked(
        starts=0, crowds=DOUBLING, forks=(), settle_seconds=0.0, stock=0, gap_seconds=0.5, seconds=0.0, floor_bytes=0
    )
    crowds: list[tuple[int, float]] = []

    class Full(Starts):
        def __init__(self) -> None:
            self.asked = asked

        def _crowd(self, backend: Any, size: int, gap_seconds: float, **_: Any) -> bool:
            crowds.append((size, gap_seconds))
            return size < 16

    Full()._start_many([SimpleNamespace(name="process")], random.Random(1))  # type: ignore[list-item]
    assert crowds == [(2, 0.0), (4, 0.0), (8, 0.0), (16, 0.0), (8, 0.5)]
    assert (DOUBLING[0], DOUBLING[-1]) == (2, 512)
