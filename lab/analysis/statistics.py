"""Medians, intervals and effect sizes, vectorised; numbers in, numbers out.

Everything resamples *blocks*, not single values: observations of one block share the state the host was in.
"""

from __future__ import annotations

import zlib

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Indices = NDArray[np.intp]

RESAMPLES = 4000
LEVEL = 0.95
MAD_TO_SIGMA = 1.4826
"""Scales the median absolute deviation to the standard deviation of a normal distribution."""


def resamples(blocks: int, seed: int, key: str, count: int = RESAMPLES) -> Indices:
    """``count`` × ``blocks`` block indices drawn with replacement, always the same for a seed and key.

    Arms that share the key share the draws, which is what pairs them within a block.
    """
    generator = _generator(seed, key)
    return generator.integers(0, blocks, size=(count, blocks), dtype=np.intp)


def resamples_of_sessions(sessions: NDArray[np.int64], seed: int, key: str, count: int = RESAMPLES) -> Indices:
    """Like `resamples`, in two stages: sessions are drawn with replacement, then blocks within each that was drawn.

    ``sessions`` is that of each block. A session with fewer blocks than the longest is drawn from as often as that.
    """
    generator = _generator(seed, key)
    members = [np.flatnonzero(sessions == session) for session in np.unique(sessions)]
    sizes = np.array([len(each) for each in members])
    table = np.zeros((len(members), sizes.max()), dtype=np.intp)
    for row, each in zip(table, members, strict=True):
        row[: len(each)] = each
    drawn = generator.integers(0, len(members), size=(count, len(members), 1))
    places = (generator.random((count, len(members), sizes.max())) * sizes[drawn]).astype(np.intp)
    result: Indices = table[drawn, places].reshape(count, -1)
    return result


def _generator(seed: int, key: str) -> np.random.Generator:
    return np.random.default_rng([seed & 0xFFFFFFFF, zlib.crc32(key.encode())])


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


def resampled_medians(matrix: Floats, draws: Indices) -> Floats:
    """The median of each resample of the blocks of ``matrix`` (see by_block)."""
    return medians(matrix[draws].reshape(len(draws), -1))


def interval(statistics: Floats, level: float = LEVEL) -> tuple[float, float]:
    """The central percentile interval; (NaN, NaN) when nothing is left."""
    finite = statistics[np.isfinite(statistics)]
    if not len(finite):
        return float("nan"), float("nan")
    low, high = np.quantile(finite, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


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
