"""How arms differ: ratios to a baseline, and whether a difference may be claimed.

The A/A pair is one backend under two labels. Whatever ratio it shows is noise by construction, so its interval,
made symmetric because the two labels are interchangeable, is the band inside which nothing is claimed. What the
A/A pair was not asked for (load, say, to save time) borrows the band of its boots, and says so.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from lab.analysis import inference
from lab.analysis import statistics as st
from lab.analysis.data import TWIN, counted, sessions_of
from lab.analysis.quantities import is_key

COLUMNS = (
    "quantity", "state", "arm", "baseline", "unit", "n", "ratio", "low", "high", "delta", "p", "adjusted",
    "band_low", "band_high", "band_of", "claim", "why", "seems",
)  # fmt: skip

ALPHA = 0.05
"""The probability with which a report of differences that aren't there claims any of them."""

BORROWED = ("boot.total", "")
"""Whose A/A band stands in where the pair was not observed."""


@dataclass(frozen=True, slots=True)
class _Series:
    """One arm's successful values of one quantity, as a row per block."""

    values: st.Floats
    matrix: st.Floats
    failures: int

    def blocks(self) -> set[int]:
        """The rows that hold at least one value."""
        return set(np.flatnonzero(np.isfinite(self.matrix).any(axis=1)).tolist())


@dataclass(frozen=True, slots=True)
class _Draws:
    """Resamples of the rows, and the session of each row where sessions are what is resampled."""

    indices: st.Indices
    sessions: inference.Sessions


def ratios(frame: pd.DataFrame, baseline: str = "process", *, seed: int = 0) -> pd.DataFrame:
    """Each arm's median over the baseline's, per quantity and state that both were observed in.

    Columns: n (blocks in which both succeeded), ratio, low and high (interval, 95 %; see `lab.analysis.inference`:
    an arm and its baseline are compared within blocks, so what a block shares cancels out), delta (Cliff's, positive
    when the arm's values are larger), p (two-sided, of this comparison alone), adjusted (Holm's, over all judged
    comparisons of the report; NaN for a quantity that is not judged), band_low and band_high (the A/A band; NaN
    without an A/A pair), band_of (the quantity that the band was measured on), claim, why not when it is False, and
    seems: True where only Holm's correction stands against the claim, which more blocks would decide.
    The A/A twin's own rows are the ratio to the arm that it repeats.
    """
    measured = counted(frame)
    blocks = np.sort(measured["block"].unique()).astype(np.int64)
    series: dict[tuple[str, str], dict[str, _Series]] = {}
    units: dict[str, str] = {}
    for key, group in measured.groupby(["quantity", "state", "arm"], sort=False, observed=True):
        series.setdefault((str(key[0]), str(key[1])), {})[str(key[2])] = _series(group, blocks)
        units[str(key[0])] = str(group["unit"].iloc[0])
    sessions = sessions_of(measured, blocks)
    draws = {key: _draws(len(blocks), sessions, seed, "/".join(key)) for key in series}
    twins = {key: _twin(arms, draws[key]) for key, arms in series.items()}
    bands = {key: _symmetric(twin["low"], twin["high"]) for key, twin in twins.items() if twin}
    rows: list[dict[str, Any]] = []
    for key, arms in series.items():
        source = key if key in bands else BORROWED
        low, high = bands.get(source, (math.nan, math.nan))
        common = {"quantity": key[0], "state": key[1], "unit": units[key[0]], "band_low": low, "band_high": high}
        common["band_of"] = source[0] if source in bands else ""
        twin = twins[key]
        if twin:
            rows.append(
                common | twin | {"adjusted": math.nan, "claim": False, "why": "the A/A pair itself", "seems": False}
            )
        rows += [common | row for row in _against(arms, baseline, draws[key])]
    _judge(rows)
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _draws(blocks: int, sessions: inference.Sessions, seed: int, key: str) -> _Draws:
    if sessions is None:
        return _Draws(st.resamples(blocks, seed, key), None)
    return _Draws(st.resamples_of_sessions(sessions, seed, key), sessions)


def _judge(rows: list[dict[str, Any]]) -> None:
    """Claim what stands the correction for all comparisons of the report; for the others say why not."""
    against = [row for row in rows if "claim" not in row]
    p_values = np.array([row["p"] if is_key(row["quantity"]) else math.nan for row in against])
    for row, adjusted in zip(against, inference.holm(p_values), strict=True):
        row["adjusted"] = float(adjusted)
        alone, many = _why_not(row), _why_not_among_many(row)
        row["why"] = alone or many
        row["claim"] = not row["why"]
        row["seems"] = bool(many) and not alone


def _series(group: pd.DataFrame, blocks: np.ndarray[Any, np.dtype[np.int64]]) -> _Series:
    good = group[group["value"].notna()]
    values = good["value"].to_numpy(dtype=np.float64)
    matrix = st.by_block(values, good["block"].to_numpy(dtype=np.int64), blocks)
    return _Series(values, matrix, len(group) - len(good))


def _twin(arms: dict[str, _Series], draws: _Draws) -> dict[str, Any]:
    """The A/A pair's own ratio; empty when it was not observed."""
    for label, twin in arms.items():
        original = arms.get(label.removesuffix(TWIN))
        if label.endswith(TWIN) and original is not None and len(twin.values) and len(original.values):
            return _ratio(label, twin, label.removesuffix(TWIN), original, draws)
    return {}


def _against(arms: dict[str, _Series], baseline: str, draws: _Draws) -> list[dict[str, Any]]:
    """Every arm's ratio to the baseline, the A/A twin left out."""
    base = arms.get(baseline)
    if base is None or not len(base.values):
        return []
    return [
        _ratio(label, arm, baseline, base, draws)
        for label, arm in arms.items()
        if label != baseline and not label.endswith(TWIN) and len(arm.values)
    ]


def _ratio(label: str, arm: _Series, baseline: str, base: _Series, draws: _Draws) -> dict[str, Any]:
    ratio, low, high = inference.ratio_interval(arm.matrix, base.matrix, draws.indices, draws.sessions)
    return {
        "arm": label,
        "baseline": baseline,
        "n": len(arm.blocks() & base.blocks()),
        "ratio": ratio,
        "low": low,
        "high": high,
        "p": inference.p_value(arm.matrix, base.matrix, draws.sessions),
        "censored": arm.failures,
        "base_censored": base.failures,
        "delta": st.cliffs_delta(arm.values, base.values),
    }


def _symmetric(low: float, high: float) -> tuple[float, float]:
    if not (low > 0 and high > 0):
        return math.nan, math.nan
    reach = max(abs(math.log(low)), abs(math.log(high)))
    return math.exp(-reach), math.exp(reach)


def _why_not(row: dict[str, Any]) -> str:
    """Empty when the difference could be claimed if it were the only one looked at."""
    if row["n"] < 3:
        return f"only {row['n']} shared block{'s' * (row['n'] != 1)}"
    if math.isnan(row["ratio"]):
        return "no ratio of values that are not positive"
    if math.isnan(row["band_low"]):
        return "no A/A pair to compare with"
    if row["censored"] and row["ratio"] < 1:
        return "it failed at times: faster only where it did not"
    if row["base_censored"] and row["ratio"] > 1:
        return f"{row['baseline']} failed at times: slower only than where it did not"
    if row["low"] <= 1 <= row["high"]:
        return "the interval holds 1"
    if row["low"] <= row["band_high"] and row["high"] >= row["band_low"]:
        return "the interval touches the A/A band"
    return ""


def _why_not_among_many(row: dict[str, Any]) -> str:
    """Empty when it stands Holm's correction too, or is not judged."""
    if row["adjusted"] <= ALPHA or math.isnan(row["adjusted"]):
        return ""
    return f"one of many comparisons: p = {row['adjusted']:.2g} after Holm's correction"
