"""How long to go on: until intervals are as narrow as ``--precision`` asks, or until ``--detect`` would be found."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from lab.analysis.inference.estimate import needed
from lab.analysis.inference.judge import ALPHA, HEADLINE
from lab.analysis.summary import summary

WATCHED = "boot.total"
"""The quantity whose intervals are watched: every instance of every run has it, each at most once."""


def in_percent(width: float) -> str:
    """``4.2 %``; words where there is no interval."""
    return f"{100 * width:.2g} %" if math.isfinite(width) else "no interval"


def widths(frame: pd.DataFrame, until: int | None = None) -> dict[str, float]:
    """For each arm the width of the interval of its median boot, divided by the median.

    Of the blocks up to ``until``, if given. Infinite for an arm that has no interval: too few succeeded, or none did.
    """
    boots = frame[frame["quantity"] == WATCHED]
    if until is not None:
        boots = boots[boots["block"] <= until]
    table = summary(boots)
    found = ((table["high"] - table["low"]) / table["median"]).fillna(math.inf)
    return dict(zip(table["arm"].astype(str), found.astype(float), strict=True))


def blocks_needed(ratios: pd.DataFrame, share: float) -> float:
    """How many blocks find a difference of ``share`` four times in five, in the headline that scatters most.

    ``ratios`` is the table of `lab.analysis.loaded.Loaded.ratios`. Each is tested as one of its family, as
    `lab.analysis.inference.judge` does. Infinite where no comparison has a scatter yet.
    """
    headlines = ratios[(ratios["family"] == HEADLINE) & ratios["scatter"].notna()]
    if headlines.empty:
        return math.inf
    level = ALPHA / headlines.groupby("arm").size().max()
    return float(needed(headlines["scatter"].to_numpy(dtype=np.float64), level, 1 + share).max())
