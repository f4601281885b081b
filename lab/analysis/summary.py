"""What was observed, per quantity, state and arm: absolute values with their uncertainty."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lab.analysis.data import counted, sessions_of
from lab.analysis.inference import estimate
from lab.analysis.inference import statistics as st
from lab.results.record import Status

KEYS = ["quantity", "state", "arm"]
COLUMNS = [
    *KEYS, "metric", "unit", "n", "failed", "timeout", "resolution", "median", "low", "high", "p95", "minimum",
    "maximum", "mad",
]  # fmt: skip
OBSERVED = ["value", "block", "status", "resolution", "metric", "unit", "instance"]

CENSORED = "boot.total"
"""The quantity of an instance that failed or timed out: it would have taken longer than any that came up."""


def summary(frame: pd.DataFrame) -> pd.DataFrame:
    """One row per (quantity, state, arm), in the order they first appear.

    Columns, values in ``unit``: metric, quantity, state, arm, unit, n (observations that succeeded), median, low and
    high (interval of the median over blocks, 95 %, see `lab.analysis.inference.estimate.median_interval`), p95,
    minimum, maximum, mad, resolution (the largest error bar of polling), failed and timeout (counts). Warm-ups,
    excluded blocks, probes' answers and what was observed of the host itself are left out. An arm that never
    succeeded has n = 0 and NaN. Failures and timeouts of a boot are censored: they count as longer than all that
    succeeded, so that its median is NaN unless more than half did, and its p95 is not known.
    """
    measured = counted(frame)
    blocks = np.sort(measured["block"].unique()).astype(np.int64)
    sessions = sessions_of(measured, blocks)
    columns = {name: measured[name].to_numpy() for name in OBSERVED}
    groups: Mapping[Any, Any] = measured.groupby(KEYS, sort=False, observed=True).indices
    rows = [
        _row(dict(zip(KEYS, key, strict=True)), {name: columns[name][at] for name in OBSERVED}, blocks, sessions)
        for key, at in sorted(groups.items(), key=lambda group: group[1][0])
    ]
    return pd.DataFrame(rows, columns=COLUMNS)


def _row(
    key: dict[str, Any], group: Mapping[str, NDArray[Any]], blocks: NDArray[np.int64], sessions: estimate.Sessions
) -> dict[str, Any]:
    """Of the columns of one group; a column's part is quickly taken, a frame's takes as long as all else here."""
    good = ~np.isnan(group["value"])
    values = group["value"][good]
    row = {
        **key,
        "metric": group["metric"][0],
        "unit": group["unit"][0],
        "n": len(values),
        "failed": int((group["status"] == Status.FAILED).sum()),
        "timeout": int((group["status"] == Status.TIMEOUT).sum()),
        "resolution": float(np.fmax.reduce(group["resolution"])),
    }
    if not len(values):
        return row | dict.fromkeys(("median", "low", "high", "p95", "minimum", "maximum", "mad"), float("nan"))
    matrix = st.by_block(values, group["block"][good].astype(np.int64), blocks)
    censored = 0
    if key["quantity"] == CENSORED and not good.all():  # what fell over after its boot has booted
        censored = len(set(group["instance"]) - set(group["instance"][good]))
    low, high = estimate.median_interval(st.medians(matrix), sessions=sessions)
    if censored:
        low, high = estimate.censored_interval(values, censored)
    return row | {
        "median": estimate.censored_median(values, censored) if censored else float(np.median(values)),
        "low": low,
        "high": high,
        "p95": float("nan") if censored else float(np.quantile(values, 0.95)),
        "minimum": float(values.min()),
        "maximum": float(values.max()),
        "mad": st.mad(values),
    }


def one(table: pd.DataFrame, quantity: str, arm: str, state: str | None = None) -> dict[str, Any] | None:
    """The row of ``summary`` or ``ratios`` for a quantity and arm; ``state`` None takes the first there is."""
    chosen = table[(table["quantity"] == quantity) & (table["arm"] == arm)] if len(table) else table
    if state is not None and len(chosen):
        chosen = chosen[chosen["state"] == state]
    return None if chosen.empty else {str(key): value for key, value in chosen.iloc[0].items()}
