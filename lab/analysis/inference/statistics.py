"""Medians, intervals and effect sizes, vectorised; numbers in, numbers out."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

LEVEL = 0.95
MAD_TO_SIGMA = 1.4826
"""Scales the median absolute deviation to the standard deviation of a normal distribution."""


def by_block(values: Floats, blocks: NDArray[np.int64], order: NDArray[np.int64]) -> Floats:
    """A row per block of ``order``, padded with NaN to the most observations any block has."""
    rows = [values[blocks == block] for block in order]
    width = max((len(row) for row in rows), default=0) or 1
    matrix = np.full((len(rows), width), np.nan)
    for index, row in enumerate(rows):
        matrix[index, : len(row)] = row
    return matrix


def medians(matrix: Floats) -> Floats:
    """The median of each row, NaN entries left out; NaN for a row without any. Much faster than nanmedian."""
    ordered = np.sort(matrix, axis=1)  # NaN sorts last
    counts = np.count_nonzero(~np.isnan(ordered), axis=1)
    rows = np.arange(len(ordered))
    low = ordered[rows, np.maximum(counts - 1, 0) // 2]
    high = ordered[rows, np.minimum(counts // 2, ordered.shape[1] - 1)]
    result: Floats = (low + high) / 2
    return result


def mad(values: Floats) -> float:
    """Median absolute deviation, in the unit of the values."""
    return float(np.median(np.abs(values - np.median(values)))) if len(values) else float("nan")


def cliffs_delta(first: Floats, second: Floats) -> float:
    """P(first > second) − P(first < second) over all pairs: −1 … 1, 0 when neither tends to be larger."""
    if not len(first) or not len(second):
        return float("nan")
    return float(np.sign(first[:, None] - second[None, :]).mean())


def reachable_level(blocks: int) -> float:
    """The probability that a median lies between the smallest and the largest of ``blocks`` values.

    No interval out of so few blocks can promise more: 1 − 2·(1/2)ⁿ, whatever the distribution.
    """
    return 1 - 2 * 0.5**blocks if blocks > 0 else 0.0


def kendall_z(values: Floats) -> float:
    """How far the order of ``values`` is from trendless, in standard deviations (Mann-Kendall, no ties)."""
    count = len(values)
    if count < 3:
        return 0.0
    first, second = np.triu_indices(count, k=1)
    score = float(np.sign(values[second] - values[first]).sum())
    return score / float(np.sqrt(count * (count - 1) * (2 * count + 5) / 18))


def slope(values: Floats) -> float:
    """Theil-Sen: the median slope over all pairs, per step."""
    first, second = np.triu_indices(len(values), k=1)
    return float(np.median((values[second] - values[first]) / (second - first))) if len(first) else 0.0


def gap_ratio(values: Floats) -> float:
    """How much wider the widest inner gap is than the wider of the two groups it parts; 0 when there is none.

    Each group must hold a quarter of the values, three at the least. Above about 2 the values form two clusters.
    """
    ordered = np.sort(values)
    fewest = max(3, -(-len(ordered) // 4))
    best = 0.0
    for cut in range(fewest, len(ordered) - fewest + 1):
        gap = ordered[cut] - ordered[cut - 1]
        spread = max(ordered[cut - 1] - ordered[0], ordered[-1] - ordered[cut])
        best = max(best, float(gap / spread) if spread > 0 else (float("inf") if gap > 0 else 0.0))
    return best
