"""What many starts say: the median, and the percentiles that only many can show, each with an interval.

A percentile lies between order statistics of independent values (David and Nagaraja, Order Statistics, 3rd edition,
section 7.1): how many of n values fall below it is binomial, whatever their distribution. So its interval assumes
nothing, and where too few values lie beyond it there is no upper end, which is said and not made up.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
import scipy

from lab.analysis.data import Observed
from lab.analysis.inference.statistics import Floats

START, COMMAND, ANSWER, STOP = "starts.start", "starts.command", "starts.answer", "starts.stop"
CROWD, STAGGER = "starts.at_once", "starts.staggered"
PAUSE, RESUME = "starts.pause", "starts.resume"
FORKED, MAPPED, HANDED = "starts.forked", "starts.mapped", "starts.handed_out"
ONE_BY_ONE = (START, COMMAND, ANSWER, PAUSE, RESUME, STOP, HANDED)
FORKS = (FORKED, MAPPED)
CROWDS = (CROWD, STAGGER, *FORKS)
HELD = ("pss", "shared", "private")
SAVED, LATER = "saved", ".later"
SHARES = (0.5, 0.95, 0.99)
BEYOND = 3
"""A percentile is told when at least so many values are expected beyond it: p95 from 60 starts, p99 from 300."""
LEVEL = 0.95


@dataclass(frozen=True, slots=True, kw_only=True)
class Percentile:
    """The value that ``share`` of all starts do not exceed. NaN: too few to tell it, or an end that can't be told."""

    share: float
    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """One quantity of one backend, in seconds. ``copies`` is how many were requested together; 1 is one by one."""

    arm: str
    quantity: str
    copies: int
    n: int
    failed: int
    percentiles: tuple[Percentile, ...]
    slowest: float

    def at(self, share: float) -> Percentile:
        """One of its percentiles."""
        return next(each for each in self.percentiles if each.share == share)


def taken(loaded: Observed) -> list[Taken]:
    """Every quantity of every backend, in the order of the plan; of several copies at once one for each number."""
    frame = loaded.frame
    frame = frame[(frame["metric"] == "starts") & (frame["block"] > 0)]
    found = []
    for arm in loaded.all_arms:
        own = frame[frame["arm"] == arm.label]
        found += [_taken(arm.label, quantity, 1, own[own["quantity"] == quantity]) for quantity in ONE_BY_ONE]
        for quantity in CROWDS:
            groups = own[own["quantity"] == quantity].groupby("block", sort=True)
            found += [_taken(arm.label, quantity, int(str(copies)), group) for copies, group in groups]
    return [each for each in found if each.n or each.failed]


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """What copies that were requested together held once all stood, and ``later``: medians over them, in bytes. NaN
    where nobody looked. ``saved`` is what of the host's memory that holds which they all map.
    """

    arm: str
    quantity: str
    copies: int
    n: int
    pss: float
    shared: float
    private: float
    pss_later: float
    shared_later: float
    private_later: float
    saved: float
    saved_later: float


def memory(loaded: Observed) -> list[Memory]:
    """That of every crowd whose memory was looked at, in the order of the plan."""
    frame = loaded.frame[loaded.frame["value"].notna()]
    found = []
    for arm in loaded.all_arms:
        for quantity in CROWDS:
            each = {
                name: frame[(frame["arm"] == arm.label) & (frame["quantity"] == f"{quantity}.{name}")]
                for name in (f"{what}{when}" for what in (*HELD, SAVED) for when in ("", LATER))
            }
            for copies in sorted({int(number) for number in each[HELD[0]]["block"]}):
                values = {name: rows.loc[rows["block"] == copies, "value"] for name, rows in each.items()}
                medians = {name.replace(LATER, "_later"): float(of.median()) for name, of in values.items()}
                n = len(values[HELD[0]])
                found.append(Memory(arm=arm.label, quantity=quantity, copies=copies, n=n, **medians))
    return found


def had_to_wait(loaded: Observed, arm: str) -> int:
    """How many requests to a stock found none that stood ready."""
    rows = loaded.frame[(loaded.frame["arm"] == arm) & (loaded.frame["quantity"] == HANDED)]
    return sum(detail.get("stood_ready") is False for detail in rows["detail"])


def _taken(arm: str, quantity: str, copies: int, rows: pd.DataFrame) -> Taken:
    values = rows["value"].dropna().to_numpy(dtype=np.float64)
    failed = int(rows["value"].isna().sum())
    return Taken(
        arm=arm,
        quantity=quantity,
        copies=copies,
        n=len(values),
        failed=failed,
        percentiles=tuple(percentile(values, share, failed=failed) for share in SHARES),
        slowest=float(values.max()) if len(values) and not failed else math.nan,
    )


def percentile(values: Floats, share: float, *, failed: int = 0) -> Percentile:
    """That of independent values, and its interval of 95 %.

    The ``failed`` took longer than any that succeeded, for all that is known: they are among those beyond it. The
    value is an order statistic, never between two.
    """
    ordered = np.sort(values)
    n = len(ordered) + failed
    if not enough(n, share):
        return Percentile(share=share, value=math.nan, low=math.nan, high=math.nan)

    def at(rank: int) -> float:
        """The value of a rank from 1 on; NaN above the last that is known."""
        return float(ordered[rank - 1]) if 1 <= rank <= len(ordered) else math.nan

    low, high = _ranks(n, share)
    return Percentile(share=share, value=at(math.ceil(n * share)), low=at(low), high=at(high))


@functools.cache
def _ranks(n: int, share: float) -> tuple[int, int]:
    """Between which ranks of ``n`` values the percentile is, with a confidence of `LEVEL`."""
    below = scipy.stats.binom(n, share)
    tail = (1 - LEVEL) / 2
    return int(below.ppf(tail)), int(below.ppf(1 - tail)) + 1


def enough(n: int, share: float) -> bool:
    """Whether a percentile of so many values may be told."""
    return n * (1 - share) >= BEYOND - 1e-9
