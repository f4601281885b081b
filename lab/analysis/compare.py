"""How arms differ: ratios to a baseline, and whether a difference may be claimed.

The A/A pair is one backend under two labels. Whatever ratio it shows is noise by construction, so its interval,
made symmetric because the two labels are interchangeable, is the band inside which nothing is claimed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from lab.analysis import statistics as st
from lab.analysis.data import TWIN

COLUMNS = (
    "quantity", "state", "arm", "baseline", "unit", "n", "ratio", "low", "high", "delta", "band_low", "band_high",
    "claim", "why",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Series:
    """One arm's successful values of one quantity, as a row per block."""

    values: st.Floats
    matrix: st.Floats

    def blocks(self) -> set[int]:
        """The rows that hold at least one value."""
        return set(np.flatnonzero(np.isfinite(self.matrix).any(axis=1)).tolist())


def ratios(frame: pd.DataFrame, baseline: str = "process", *, seed: int = 0) -> pd.DataFrame:
    """Each arm's median over the baseline's, per quantity and state that both were observed in.

    Columns: n (blocks in which both succeeded), ratio, low and high (bootstrap interval, 95 %; whole blocks are
    resampled, so what a block shares cancels out), delta (Cliff's, positive when the arm's values are larger),
    band_low and band_high (the A/A band; NaN without an A/A pair), claim, and why not when it is False.
    The A/A twin's own rows are the ratio to the arm that it repeats.
    """
    measured = frame[~frame["warmup"] & (frame["unit"] != "answer")]
    blocks = np.sort(measured["block"].unique()).astype(np.int64)
    rows: list[dict[str, Any]] = []
    for key, group in measured.groupby(["quantity", "state"], sort=False, observed=True):
        quantity, state = str(key[0]), str(key[1])
        series = {str(arm): _series(each, blocks) for arm, each in group.groupby("arm", sort=False, observed=True)}
        draws = st.resamples(len(blocks), seed, f"{quantity}/{state}")
        common = {"quantity": quantity, "state": state, "unit": str(group["unit"].iloc[0])}
        rows += [common | row for row in _compare(series, baseline, draws)]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _series(group: pd.DataFrame, blocks: np.ndarray[Any, np.dtype[np.int64]]) -> _Series:
    good = group[group["value"].notna()]
    values = good["value"].to_numpy(dtype=np.float64)
    return _Series(values, st.by_block(values, good["block"].to_numpy(dtype=np.int64), blocks))


def _compare(series: dict[str, _Series], baseline: str, draws: st.Indices) -> list[dict[str, Any]]:
    resampled = {arm: st.resampled_medians(one.matrix, draws) for arm, one in series.items() if len(one.values)}
    twins = [arm for arm in resampled if arm.endswith(TWIN) and arm.removesuffix(TWIN) in resampled]
    band = (math.nan, math.nan)
    rows = []
    for twin in twins:
        row = _ratio(series, resampled, twin, twin.removesuffix(TWIN))
        band = _symmetric(row["low"], row["high"])
        rows.append(row | {"band_low": band[0], "band_high": band[1], "claim": False, "why": "the A/A pair itself"})
    if baseline in resampled:
        for arm in resampled:
            if arm != baseline and arm not in twins:
                row = _ratio(series, resampled, arm, baseline) | {"band_low": band[0], "band_high": band[1]}
                why = _why_not(row)
                rows.append(row | {"claim": not why, "why": why})
    return rows


def _ratio(series: dict[str, _Series], resampled: dict[str, st.Floats], arm: str, base: str) -> dict[str, Any]:
    with np.errstate(divide="ignore", invalid="ignore"):
        statistics = resampled[arm] / resampled[base]
    above, below = float(np.median(series[arm].values)), float(np.median(series[base].values))
    usable = above > 0 and below > 0 and bool(np.all(statistics[np.isfinite(statistics)] > 0))
    low, high = st.interval(statistics) if usable else (math.nan, math.nan)
    return {
        "arm": arm,
        "baseline": base,
        "n": len(series[arm].blocks() & series[base].blocks()),
        "ratio": above / below if usable else math.nan,
        "low": low,
        "high": high,
        "delta": st.cliffs_delta(series[arm].values, series[base].values),
    }


def _symmetric(low: float, high: float) -> tuple[float, float]:
    if not (low > 0 and high > 0):
        return math.nan, math.nan
    reach = max(abs(math.log(low)), abs(math.log(high)))
    return math.exp(-reach), math.exp(reach)


def _why_not(row: dict[str, Any]) -> str:
    """Empty when the difference may be claimed."""
    if row["n"] < 3:
        return f"only {row['n']} shared block{'s' * (row['n'] != 1)}"
    if math.isnan(row["ratio"]):
        return "no ratio of values that are not positive"
    if math.isnan(row["band_low"]):
        return "no A/A pair to compare with"
    if row["low"] <= 1 <= row["high"]:
        return "the interval holds 1"
    if row["low"] <= row["band_high"] and row["high"] >= row["band_low"]:
        return "the interval touches the A/A band"
    return ""
