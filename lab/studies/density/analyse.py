"""How memory and start-up grow with the number of copies: a slope with its interval, and whether it is a line."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import scipy

from lab.analysis.data import Observed
from lab.analysis.inference import statistics as st
from lab.analysis.inference.judge import ALPHA, adjusted
from lab.analysis.quantities import format_interval, format_value

FEWEST = 5
"""Fewer copies make no slope."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Growth:
    """One quantity of one backend over 1 … n copies.

    ``per_copy`` with ``low`` and ``high`` is Theil and Sen's slope and its interval of 95 % (Sen 1968), in ``unit``.
    ``p`` is how often values without a trend would rise or fall as steadily (Kendall's tau); after `growths`, as one
    of the backend's quantities: these are a headline family of `lab.analysis.inference.judge`. ``bend`` compares the
    slope of the later half with that of the earlier: 1 is a line. NaN where that can't be said.
    """

    arm: str
    quantity: str
    unit: str
    copies: int
    first: float
    last: float
    per_copy: float
    low: float
    high: float
    bend: float
    p: float

    @property
    def trend(self) -> bool:
        """Whether growth may be claimed."""
        return self.p <= ALPHA

    @property
    def slope(self) -> str:
        """What one more copy adds; "" where no growth can be told."""
        return format_value(self.per_copy, self.unit) if self.trend and not math.isnan(self.per_copy) else ""

    @property
    def on_average(self) -> str:
        """What each copy after the first has added, for too few of them to tell how it grows; "" for one alone."""
        if self.copies < 2:
            return ""
        return f"{format_value((self.last - self.first) / (self.copies - 1), self.unit)} on average"

    @property
    def interval(self) -> str:
        """That of the slope; "" where there is none."""
        return f"95 %: {format_interval(self.low, self.high, self.unit)}" if self.slope else ""

    @property
    def shape(self) -> str:
        """Whether it grows in a line, or why that can't be said."""
        if math.isnan(self.per_copy):
            return f"{self.copies} copies are too few to say how it grows"
        if not self.trend:
            return self.flat
        if math.isnan(self.bend) or 2 / 3 <= self.bend <= 1.5:
            return "in a line"
        if self.bend <= 0:
            return "no more in the later half"
        word = "ever faster" if self.bend > 1 else "ever slower"
        return f"{word}: in the later half {self.bend:.2g} × as much per copy"

    @property
    def flat(self) -> str:
        """That enough copies show no growth; "" for too few."""
        if math.isnan(self.per_copy):
            return ""
        return f"no growth that could be told from scatter over {self.copies} copies"

    def __str__(self) -> str:
        return f"{self.slope} a copy ({self.interval}), {self.shape}" if self.slope else self.shape


def growths(loaded: Observed) -> list[Growth]:
    """Every density quantity of every backend, bursts left out."""
    frame = loaded.frame
    frame = frame[(frame["metric"] == "density") & (frame["quantity"] != "density.burst") & frame["value"].notna()]
    order = [arm.label for arm in loaded.all_arms]
    groups = frame.groupby(["arm", "quantity"], sort=False, observed=True)
    alone = [growth(str(arm), str(quantity), group) for (arm, quantity), group in groups]
    found = []
    for arm in order:
        own = [each for each in alone if each.arm == arm]
        p_values = adjusted(np.array([each.p for each in own]), is_headline=True)
        found += [replace(each, p=float(p)) for each, p in zip(own, p_values, strict=True)]
    return sorted(found, key=lambda each: order.index(each.arm))


def growth(arm: str, quantity: str, group: pd.DataFrame) -> Growth:
    """``group`` has a row per number of copies: ``block`` and ``value``."""
    group = group.sort_values("block")
    copies = group["block"].to_numpy(dtype=np.float64)
    values = group["value"].to_numpy(dtype=np.float64)
    per_copy = low = high = bend = p = math.nan
    if len(values) >= FEWEST:
        fitted = scipy.stats.theilslopes(values, copies, 0.95)
        per_copy, low, high = float(fitted.slope), float(fitted.low_slope), float(fitted.high_slope)
        bend = _bend(copies, values)
        p = float(scipy.stats.kendalltau(copies, values).pvalue)
    return Growth(
        arm=arm,
        quantity=quantity,
        unit=str(group["unit"].iloc[0]),
        copies=int(copies.max()),
        first=float(values[0]),
        last=float(values[-1]),
        per_copy=per_copy,
        low=low,
        high=high,
        bend=bend,
        p=p,
    )


def _bend(copies: st.Floats, values: st.Floats) -> float:
    """The later half's slope over the earlier one's. 1 where their intervals of 95 % meet, since scatter alone bends
    every line; NaN for halves of too few copies, or an earlier one that does not grow.
    """
    half = len(values) // 2
    if half < FEWEST:
        return math.nan
    early = scipy.stats.theilslopes(values[:half], copies[:half], 0.95)
    late = scipy.stats.theilslopes(values[-half:], copies[-half:], 0.95)
    if early.low_slope <= late.high_slope and late.low_slope <= early.high_slope:
        return 1.0
    return float(late.slope / early.slope) if early.slope > 0 else math.nan
