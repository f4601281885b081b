"""The one estimator: the mean of log ratios with Student's t, the same for three blocks and for forty.

What is compared are *blocks*: an arm and its baseline in one block met the same host, so the logarithm of their ratio
is one observation, and whatever the host did to the whole block cancels out. The mean of these is the logarithm of
the geometric mean of the ratios. Its interval and its p come from one and the same t, so they can't disagree.

There is no other method for many blocks: each one that was tried (medians, resampled; signed ranks) asks another
question, so that a run that goes on would jump from one answer to another. What skew and outliers do to this one is
in docs/statistics.md, simulated.

Blocks of one session share what a process of lab's got by chance: addresses, caches, a place in memory. With three
sessions or more, a session's mean is therefore one observation.

The tests are scipy's (`ttest_1samp`, `ttest_ind`), power is statsmodels' (`ttest_power`). Intervals of a single
median are another thing, and only describe it: Hettmansperger and Sheather (1986), `scipy.stats.mstats.median_cihs`.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd
import scipy  # which brings scipy.stats when that is first used, a second of work that short runs need not
from numpy.typing import NDArray

from lab.analysis.inference.statistics import LEVEL, Floats

Sessions = NDArray[np.int64] | None
"""The session of each block; None where there was but one."""

FEWEST = 3
"""Out of fewer values no interval is made: Student's would reach from nothing to everything."""

ENOUGH_FOR_ORDER = 6
"""With fewer values even the range from the smallest to the largest holds the median less than 95 % of the time."""

MARGIN = 1.05
"""Within this ratio, either way, two things count as the same: the declared margin of equivalence."""

POWER = 0.8
"""How often a difference shall be found that a run is said to be able to show."""

MOST_BLOCKS = 200
"""Up to so many the exact power is computed; beyond, effects shrink with the square root of the number."""

COLUMNS = ("ratio", "low", "high", "p", "same", "units", "scatter")


def estimates(logs: Floats, sessions: Sessions = None) -> pd.DataFrame:
    """One row per row of ``logs``: a log ratio per block, NaN where a block has none.

    Columns: ratio (the geometric mean), low and high (its interval of 95 %), p (of no difference, two-sided), same
    (of a difference as large as `MARGIN` or larger: two one-sided tests), units (how many independent observations:
    blocks, or sessions where ``sessions`` names those of each block), scatter (their standard deviation, of
    logarithms). All but the ratio are NaN with fewer than `FEWEST` units.
    """
    values = by_session(logs, sessions)
    known = np.isfinite(values)
    table = np.full((len(values), len(COLUMNS)), math.nan)
    for pattern in np.unique(known, axis=0):
        rows = (known == pattern).all(axis=1)
        table[rows] = _paired(values[rows][:, pattern])
    return pd.DataFrame(table, columns=list(COLUMNS))


def estimates_apart(pairs: list[tuple[Floats, Floats]]) -> pd.DataFrame:
    """Like `estimates` for values that share no block: rows of the logarithms (above, below); Welch's t."""
    table = np.full((len(pairs), len(COLUMNS)), math.nan)
    counts = [(len(above), len(below)) for above, below in pairs]
    for each in set(counts):  # scipy takes as long for one pair as for all that have as many values
        rows = [row for row, count in enumerate(counts) if count == each]
        above, below = (np.stack([pairs[row][side] for row in rows]) for side in (0, 1))
        table[rows] = _apart(above, below)
    return pd.DataFrame(table, columns=list(COLUMNS))


def _paired(values: Floats) -> Floats:
    """The columns for rows that all have a value in every block."""
    count = values.shape[1]
    if count < FEWEST:
        table = np.full((len(values), len(COLUMNS)), math.nan)
        if count:
            table[:, 0] = np.exp(values.mean(axis=1))
        table[:, 5] = count
        return table
    return _tested(
        values.mean(axis=1),
        values.std(axis=1, ddof=1),
        float(count),
        lambda null, side: scipy.stats.ttest_1samp(values, null, axis=1, alternative=side),
    )


def _apart(above: Floats, below: Floats) -> Floats:
    """The columns for rows that all have as many values above, and as many below."""
    fewest = min(above.shape[1], below.shape[1])
    means = above.mean(axis=1) - below.mean(axis=1) if fewest else np.full(len(above), math.nan)
    if fewest < FEWEST:
        table = np.full((len(above), len(COLUMNS)), math.nan)
        table[:, 0] = np.exp(means)
        table[:, 5] = fewest
        return table
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        freedom = scipy.stats.ttest_ind(above, below, axis=1, equal_var=False).df
    error = np.sqrt(above.var(axis=1, ddof=1) / above.shape[1] + below.var(axis=1, ddof=1) / below.shape[1])
    # scipy says 1 of what never varies
    units = 1 + np.where(error > 0, freedom, above.shape[1] + below.shape[1] - 2)
    return _tested(
        means,
        error * np.sqrt(units),
        units,
        lambda null, side: scipy.stats.ttest_ind(above - null, below, axis=1, equal_var=False, alternative=side),
    )


def _tested(means: Floats, scatter: Floats, units: float | Floats, test: Callable[[float, str], Any]) -> Floats:
    """The columns out of scipy's test, called with the null hypothesis and the side of the alternative."""
    margin = math.log(MARGIN)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of values that hardly vary, told apart below
        found = test(0.0, "two-sided")
        interval = found.confidence_interval(LEVEL)
        same = np.fmax(test(margin, "less").pvalue, test(-margin, "greater").pvalue)
        p, low, high = found.pvalue, np.exp(interval.low), np.exp(interval.high)
        ratio = np.exp(means)
    exact = scatter == 0  # what never varies is what it is
    p = np.where(exact, np.where(means == 0, 1.0, 0.0), p)
    same = np.where(exact, np.where(np.abs(means) < margin, 0.0, 1.0), same)
    low, high = np.where(exact, ratio, low), np.where(exact, ratio, high)
    return np.column_stack([ratio, low, high, p, same, np.full(len(means), units), scatter])


def by_session(logs: Floats, sessions: Sessions) -> Floats:
    """The mean of each session in place of its blocks; without sessions the blocks themselves."""
    if sessions is None:
        return logs
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of a session without any: it stays NaN
        means = [np.nanmean(logs[:, sessions == session], axis=1) for session in np.unique(sessions)]
    return np.stack(means, axis=1)


def at_level(ratio: float, low: float, high: float, units: float, level: float) -> tuple[float, float]:
    """The interval of another ``level`` than 95 %, out of the one of 95 %."""
    if not (low > 0 and math.isfinite(high)):
        return low, high
    freedom = units - 1
    wider = scipy.stats.t.ppf((1 + level) / 2, freedom) / scipy.stats.t.ppf((1 + LEVEL) / 2, freedom)
    return ratio * (low / ratio) ** wider, ratio * (high / ratio) ** wider


# What a run could have shown, and how many blocks would show it


def shown(units: Floats, scatter: Floats, alpha: float) -> Floats:
    """The smallest ratio above 1 that is found `POWER` of the time, tested at ``alpha``; NaN with too few units."""
    whole = np.nan_to_num(units).astype(np.int64)
    if not (whole >= FEWEST).any():
        return np.full(len(whole), math.nan)
    effects = _effects(float(f"{alpha:.6g}"))
    places = np.clip(whole, FEWEST, MOST_BLOCKS) - FEWEST
    stretched = effects[places] * np.sqrt(np.minimum(1.0, MOST_BLOCKS / np.maximum(whole, 1)))
    with np.errstate(over="ignore"):
        return np.where(whole >= FEWEST, np.exp(stretched * scatter), math.nan)


def needed(scatter: Floats, alpha: float, ratio: float) -> Floats:
    """How many units it takes to find ``ratio`` `POWER` of the time, tested at ``alpha``; NaN without a scatter."""
    if np.isnan(scatter).all():
        return np.full(len(scatter), math.nan)
    effects = _effects(float(f"{alpha:.6g}"))
    with np.errstate(divide="ignore"):
        wanted = math.log(ratio) / scatter
    exact = FEWEST + np.searchsorted(-effects, -wanted, side="left")
    far = np.ceil(MOST_BLOCKS * (effects[-1] / wanted) ** 2)
    return np.where(np.isnan(wanted), math.nan, np.where(exact <= MOST_BLOCKS, exact, far))


@lru_cache(maxsize=64)
def _effects(alpha: float) -> Floats:
    """Standardised effects that are found `POWER` of the time by `FEWEST` … `MOST_BLOCKS` units, by bisection."""
    from statsmodels.stats.power import ttest_power

    units = np.arange(FEWEST, MOST_BLOCKS + 1, dtype=np.float64)
    low, high = np.zeros(len(units)), np.full(len(units), 200.0) / np.sqrt(units)
    for _ in range(40):
        middle = (low + high) / 2
        # statsmodels works in units of the standard deviation; a power that overflows to NaN is 1
        enough = ~(np.asarray(ttest_power(middle, units, alpha)) < POWER)
        low, high = np.where(enough, low, middle), np.where(enough, middle, high)
    return high


# A single median


def median_interval(values: Floats, level: float = LEVEL, *, sessions: Sessions = None) -> tuple[float, float]:
    """An interval of the median of independent values; (NaN, NaN) with fewer than ``FEWEST``.

    With ``sessions``, of the medians of the sessions: independent are then these. Between order statistics, which
    assumes nothing about the distribution. Fewer than ``ENOUGH_FOR_ORDER`` values can't do that: then Student's t, on
    logarithms where all values are positive. Where none is negative the interval is not either.
    """
    values = values[np.isfinite(values)] if sessions is None else _medians_of_sessions(values, sessions)
    if len(values) < FEWEST:
        return math.nan, math.nan
    if len(values) >= ENOUGH_FOR_ORDER:
        return _between_order(values, level)
    positive = bool((values > 0).all())
    counted = np.log(values) if positive else values
    middle = float(counted.mean())
    reach = _student(len(values) - 1, level) * float(counted.std(ddof=1)) / math.sqrt(len(values))
    with np.errstate(over="ignore"):
        low, high = np.exp([middle - reach, middle + reach]) if positive else (middle - reach, middle + reach)
    least = 0.0 if bool((values >= 0).all()) else -math.inf
    return max(float(low), least), float(high)


@lru_cache(maxsize=256)
def _student(freedom: int, level: float) -> float:
    """How many standard errors an interval of Student's t reaches to each side. A report has hundreds of intervals
    with the same number of values, and scipy takes a millisecond for each.
    """
    return float(scipy.stats.t.ppf((1 + level) / 2, freedom))


def _between_order(values: Floats, level: float) -> tuple[float, float]:
    """Hettmansperger and Sheather's interval of the median."""
    place, last = _place(len(values), level), len(values) - 1
    low, high = np.interp([place, last - place], np.arange(len(values)), np.sort(values))
    return float(low), float(high)


@lru_cache(maxsize=256)
def _place(count: int, level: float) -> float:
    """Where between ``count`` sorted values, numbered from 0, that interval begins; it ends as far from the last. The
    place depends on their number alone, so that scipy is asked once for it, by values that are their own places.
    """
    return float(scipy.stats.mstats.median_cihs(np.arange(count, dtype=np.float64), 1 - level)[0])


def _medians_of_sessions(values: Floats, sessions: NDArray[np.int64]) -> Floats:
    finite = np.isfinite(values)
    kept, of = values[finite], sessions[finite]
    return np.array([np.median(kept[of == session]) for session in np.unique(of)], dtype=np.float64)


def censored_median(values: Floats, censored: int) -> float:
    """The median of ``values`` and of ``censored`` more, of which nothing is known but that they lie above all.

    NaN unless more than half are known: the others may be of any size.
    """
    return (
        float(np.median(np.append(values, np.full(censored, values.max())))) if len(values) > censored else math.nan
    )


def censored_interval(values: Floats, censored: int, level: float = LEVEL) -> tuple[float, float]:
    """Its interval between order statistics; (NaN, NaN) with too few values, or when its upper end is not known."""
    if len(values) + censored < ENOUGH_FOR_ORDER or not len(values):
        return math.nan, math.nan
    huge = 1e12 * float(np.abs(values).max() or 1.0)
    low, high = _between_order(np.append(values, np.full(censored, huge)), level)
    return (low, high) if high <= values.max() else (math.nan, math.nan)
