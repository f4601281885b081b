"""How wide an interval is compared with its median: what ``--precision`` asks for, and what the report says of it."""

from __future__ import annotations

import math

import pandas as pd

from lab.analysis.summary import summary

HEADLINE = "boot.total"
"""The quantity whose intervals are watched: every instance of every run has it, each at most once."""


def in_percent(width: float) -> str:
    """``4.2 %``; words where there is no interval."""
    return f"{100 * width:.2g} %" if math.isfinite(width) else "no interval"


def widths(frame: pd.DataFrame, until: int | None = None) -> dict[str, float]:
    """For each arm the width of the interval of its median boot, divided by the median.

    Of the blocks up to ``until``, if given. Infinite for an arm that has no interval: too few succeeded, or none did.
    """
    boots = frame[frame["quantity"] == HEADLINE]
    if until is not None:
        boots = boots[boots["block"] <= until]
    table = summary(boots)
    found = ((table["high"] - table["low"]) / table["median"]).fillna(math.inf)
    return dict(zip(table["arm"].astype(str), found.astype(float), strict=True))
