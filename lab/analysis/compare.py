"""How arms differ: the ratio of each to a baseline, within blocks, and what may be said of it.

Estimated in `lab.analysis.inference.estimate`, judged in `lab.analysis.inference.judge`. The A/A twin is its backend
once more, treated the same in everything: a second observation of it in each block.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Collection, Hashable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from lab.analysis.data import TWIN, counted, sessions_of
from lab.analysis.inference import statistics as st
from lab.analysis.inference.estimate import MARGIN, estimates
from lab.analysis.inference.judge import EXPLORATORY, HEADLINE, WITHIN, judge
from lab.analysis.inference.judge import TWIN as FAMILY_OF_TWIN
from lab.analysis.quantities import is_directed, is_headline, more_is_better

COLUMNS = (
    "quantity", "state", "arm", "baseline", "unit", "n", "ratio", "low", "high", "delta", "family", "p", "adjusted",
    "verdict", "claim", "why", "shows", "needs", "units", "scatter", "per",
)  # fmt: skip

KEYS = ["quantity", "state", "arm"]

FINE = 0.2
"""How much of the margin of "the same" polling may take."""

SET_BY_LAB = ("caches.", "ksm.", "snapshot.")
"""Conditions that lab makes and verifies; to compare them would judge lab's own settings."""


def ratios(
    frame: pd.DataFrame, baseline: str = "process", *, twin_alike: bool = True, wanted: Collection[str] = ()
) -> pd.DataFrame:
    """Each arm over the baseline, per quantity and state that both were observed in.

    Columns: n (blocks in which both succeeded), ratio (the geometric mean of the blocks' ratios), low and high (its
    interval of 95 %), delta (Cliff's, positive when the arm's values are larger), and those of
    `lab.analysis.inference.judge.Judgement`, and units (independent observations: blocks or, where there are three or
    more, sessions; ``per`` says which). ``claim`` is True for a proven difference. The A/A twin's own rows are the
    ratio to the arm that it repeats. Unless ``twin_alike`` it is no second observation, and compared in nothing that
    comes after a boot. ``wanted`` names quantities that more of is better.
    """
    measured = counted(frame)
    if measured["value"].isna().all():
        return pd.DataFrame(columns=list(COLUMNS))
    series = Series(measured, wanted)
    rows, logs, families = [], [], []
    for quantity, state, arms in series:
        if quantity.startswith(SET_BY_LAB):
            continue
        for arm, against in _pairs(arms, baseline):
            is_twin = arm.endswith(TWIN)
            if is_twin and not twin_alike and not quantity.startswith(("boot.", "cpu.boot")):
                continue
            pooled = twin_alike and not is_twin
            above, below = (series.logs(quantity, state, label, pooled) for label in (arm, against))
            logs.append(above - below)
            rows.append(
                {"quantity": quantity, "state": state, "arm": arm, "baseline": against}
                | {"unit": series.units[quantity], "n": int(np.isfinite(above - below).sum())}
                | {"delta": st.cliffs_delta(*(series.values[quantity, state, one] for one in (arm, against)))}
            )
            headline = f"{HEADLINE}:{arm}" if is_headline(quantity, state) else EXPLORATORY
            families.append(FAMILY_OF_TWIN if is_twin else headline)
    if not rows:
        return pd.DataFrame(columns=list(COLUMNS))
    sessions = sessions_of(measured, series.blocks)
    table = pd.DataFrame(rows).join(estimates(np.stack(logs), sessions))
    compared = [
        ((series, arm), (series, against)) for arm, against in zip(table["arm"], table["baseline"], strict=True)
    ]
    table = table.join(bars(table.to_dict("records"), compared))
    per = "blocks" if sessions is None else "sessions"
    return judge(table, pd.Series(families), per=per)[list(COLUMNS)]


def _pairs(arms: Collection[str], baseline: str) -> Iterator[tuple[str, str]]:
    """The twin and what it repeats first, then every other arm and the baseline."""
    for arm in arms:
        if arm.endswith(TWIN) and arm.removesuffix(TWIN) in arms:
            yield arm, arm.removesuffix(TWIN)
    if baseline in arms:
        yield from ((arm, baseline) for arm in arms if arm != baseline and not arm.endswith(TWIN))


class Series:
    """What was observed, by quantity, state and arm: values, a logarithm per block, and what was not observed."""

    def __init__(self, measured: pd.DataFrame, wanted: Collection[str] = ()) -> None:
        self.blocks = np.sort(measured["block"].unique()).astype(np.int64)
        self.wanted = wanted
        self.units = dict(zip(measured["quantity"], measured["unit"], strict=True))
        good = measured[measured["value"].notna()]
        grouped = good.groupby(KEYS, sort=False, observed=True)
        self.values = {_key(key): group.to_numpy(dtype=np.float64) for key, group in grouped["value"]}
        per_block = good.groupby([*KEYS, "block"], sort=False, observed=True)["value"].median().unstack("block")
        table = per_block.reindex(columns=self.blocks)
        positive = (table > 0) | table.isna()
        with np.errstate(divide="ignore", invalid="ignore"):
            matrix = np.log(table.where(positive.all(axis=1)).to_numpy(dtype=np.float64))
        self._logs = {_key(key): row for key, row in zip(table.index, matrix, strict=True)}
        self._resolution = self._worst_resolution(good)
        bad = measured[measured["value"].isna()]
        self._failed = {_key(key): set(each) for key, each in bad.groupby(KEYS, observed=True)["instance"]}
        dead = bad[bad["quantity"].str.startswith("boot.")]
        self._dead = {str(arm): set(each) for arm, each in dead.groupby("arm", observed=True)["instance"]}
        self._lived = {_key(key): set(each) for key, each in grouped["instance"]}

    def __iter__(self) -> Iterator[tuple[str, str, list[str]]]:
        """Every quantity and state, with its arms."""
        found: dict[tuple[str, str], list[str]] = {}
        for quantity, state, arm in self.values:
            found.setdefault((quantity, state), []).append(arm)
        for (quantity, state), arms in found.items():
            yield quantity, state, arms

    def logs(self, quantity: str, state: str, arm: str, pooled: bool = True) -> st.Floats:
        """A logarithm per block, NaN for a block without; ``pooled`` with the twin's as a second observation.

        All NaN where a value is not positive.
        """
        own: st.Floats = self._logs[quantity, state, arm]
        twin = self._logs.get((quantity, state, arm + TWIN))
        if twin is None or not pooled:
            return own
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # of a block that neither has
            result: st.Floats = np.nanmean([own, twin], axis=0)
        return result

    def middle(self, quantity: str, state: str, arm: str) -> float:
        """The geometric mean of the arm's own blocks; NaN where a value is not positive."""
        logs = self._logs[quantity, state, arm]
        return math.exp(np.nanmean(logs)) if np.isfinite(logs).any() else math.nan

    def resolution(self, quantity: str, state: str, arm: str) -> float:
        """The coarsest that it was polled, in the quantity's unit; 0 for what was seen as an event."""
        return self._resolution.get((quantity, state, arm), 0.0)

    def _worst_resolution(self, good: pd.DataFrame) -> dict[tuple[str, str, str], float]:
        worst = good.groupby(KEYS, sort=False, observed=True)["resolution"].max()
        return {_key(key): float(value) for key, value in worst[worst > 0].items()}

    def missing(self, quantity: str, state: str, arm: str) -> bool:
        """Whether an instance of the arm, or of its twin, died without a value: it would have been the worst."""
        keys = [(quantity, state, label) for label in (arm, arm + TWIN)]
        lost = [self._failed.get(key, set()) | self._dead.get(key[2], set()) for key in keys]
        return any(one - self._lived.get(key, set()) for key, one in zip(keys, lost, strict=True))


Side = tuple[Series, str]
"""What an arm was observed in, and the arm."""


def bars(rows: Sequence[Mapping[Hashable, Any]], sides: Sequence[tuple[Side, Side]]) -> pd.DataFrame:
    """What stands against any claim about each of ``rows``, whatever its numbers say; "" for nothing.

    ``sides`` has what each row compares: that which is above, and that which is below. Columns: ``bar`` against a
    difference, ``bar_same`` against "the same".

    Instances that died are not among the values: those that lived look better than the backend is. So it is never
    claimed to be better, and nothing about it to be the same. What polling can't resolve is no difference, and
    polling that takes a good part of the margin shows no equality.
    """
    found = [
        {"bar": _different(row, *pair), "bar_same": _same(row, *pair)} for row, pair in zip(rows, sides, strict=True)
    ]
    return pd.DataFrame(found, columns=["bar", "bar_same"])


def _polled(row: Mapping[Hashable, Any], above: Side, below: Side) -> tuple[float, float, float]:
    """The middle of each side, and what polling may have added to one and not to the other."""
    key = str(row["quantity"]), str(row["state"])
    coarsest = max(series.resolution(*key, arm) for series, arm in (above, below))
    return above[0].middle(*key, above[1]), below[0].middle(*key, below[1]), coarsest


def _different(row: Mapping[Hashable, Any], above: Side, below: Side) -> str:
    key, ratio = (str(row["quantity"]), str(row["state"])), float(row["ratio"])
    if math.isnan(ratio):
        return ""
    one, other, coarsest = _polled(row, above, below)
    if abs(one - other) < coarsest:
        return "the difference is smaller than polling resolves"
    wanted = above[0].wanted
    if not is_directed(key[0], wanted):
        return ""
    better = ratio > 1 if more_is_better(key[0], wanted) else ratio < 1
    if above[0].missing(*key, above[1]) and better:
        return "it failed at times: better only where it did not"
    if below[0].missing(*key, below[1]) and not better:
        return f"{below[1]} failed at times: worse only than where it did not"
    return ""


def _same(row: Mapping[Hashable, Any], above: Side, below: Side) -> str:
    key = str(row["quantity"]), str(row["state"])
    if math.isnan(float(row["ratio"])):
        return ""
    for who, (series, arm) in (("it", above), (below[1], below)):
        if series.missing(*key, arm):
            return f"{who} failed at times: the same only where it did not"
    one, other, coarsest = _polled(row, above, below)
    if coarsest > FINE * (MARGIN - 1) * min(one, other):
        return f"polled too coarsely to be the same within {WITHIN}"
    return ""


def _key(key: object) -> tuple[str, str, str]:
    assert isinstance(key, tuple)
    return str(key[0]), str(key[1]), str(key[2])
