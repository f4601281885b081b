"""Do three levels or more differ at all? One test for all of them together, within randomised complete blocks.

A block gives a vector: the contrasts of each further level with the first, or for an interaction those of each pair
of further levels. Where no level differs, each vector is noise around nothing. It is first turned and stretched so
that noise alike in all combinations points everywhere alike, with all combinations there or only some. Then:

* With fewer blocks than `inference.MANY_BLOCKS`, the F test of blocks by levels (Fisher 1925), each effect against
  its own scatter over the blocks. Levels needn't be equally noisy: degrees of freedom are those of Box (1954),
  estimated as Greenhouse and Geisser (1959) do. For two levels it is Student's t squared, `scipy.stats.ttest_rel`.
* With more, signed ranks in several dimensions: blocks ranked by how long their vectors are, each rank times the
  vector's direction, summed (Hallin and Paindaveine 2002). How often chance makes the sum as long is seen by turning
  whole blocks around (Fisher 1935), which is exact for any symmetric noise however its levels are tied together.
  For two levels it is `scipy.stats.wilcoxon`.

Friedman's test (1937) would do for main effects, and only for these: within a block the contrasts of an interaction
can't be exchanged for one another. The method was chosen by simulation on normal, heavy-tailed, skewed, contaminated
and unequal noise; the tests repeat it.
"""

from __future__ import annotations

import math
from functools import cache

import numpy as np
from scipy import stats as distributions

from lab.analysis import inference
from lab.analysis.statistics import Floats

MOST_TURNS = 1 << 15
"""All ways to turn up to 16 blocks around; of more blocks, as many at random, seeded."""


def p_value(vectors: Floats, weights: Floats, sessions: inference.Sessions = None) -> float:
    """How often blocks in which no level differs would look as different as these.

    ``vectors`` has a row of log contrasts per block; blocks that lack one are left out. ``weights`` has a row per
    contrast: how much each combination of levels counts in it. With three ``sessions`` or more, of each block, they
    count instead. NaN with fewer than ``inference.FEWEST``.
    """
    whole = np.isfinite(vectors).all(axis=1)
    of = None if sessions is None else sessions[whole]
    columns = [inference.by_session(column, of) for column in vectors[whole].T]
    values = np.stack(columns, axis=1)
    if len(values) < inference.FEWEST:
        return math.nan
    if not values.any():
        return 1.0
    turned = _sphered(values, weights)
    return _blocks_by_levels(turned) if len(values) < inference.MANY_BLOCKS else _signed_ranks(turned)


def spread(table: Floats) -> float:
    """The largest ratio (of an interaction, ratio of ratios) between any of its levels, 1 or more.

    ``table`` has the log contrasts, a row per level of the first factor and a column per level of the second, zero at
    first levels, NaN where there is none. A main effect has two columns: zero, and what each level does.
    """
    differences = table[:, None, :] - table[None, :, :]
    apart = differences[..., :, None] - differences[..., None, :]
    return float(np.exp(np.nanmax(apart)))


def _sphered(values: Floats, weights: Floats) -> Floats:
    """``values`` in axes along which independent noise of one size in every combination has one size too."""
    sizes, axes = np.linalg.eigh(weights @ weights.T)
    result: Floats = values @ (axes / np.sqrt(sizes))
    return result


def _blocks_by_levels(values: Floats) -> float:
    """The F test: how far the mean is from nothing, against the scatter around it, freedom corrected."""
    count, dimensions = values.shape
    means = values.mean(axis=0)
    scatter = (values - means).T @ (values - means) / (count - 1)
    total = float(np.trace(scatter))
    if total == 0:
        return 0.0
    evenness = total**2 / (dimensions * float((scatter * scatter).sum()))
    freedom = evenness * dimensions
    return float(distributions.f.sf(count * float(means @ means) / total, freedom, (count - 1) * freedom))


def _signed_ranks(values: Floats) -> float:
    """The share of ways to turn blocks around that make the sum of ranked directions as long as it is."""
    lengths = np.linalg.norm(values, axis=1)
    known = lengths > 0  # what does not differ says nothing, as in Wilcoxon's test
    ranks = distributions.rankdata(lengths[known])
    signed = ranks[:, None] * values[known] / lengths[known, None]
    sums = np.einsum("tb,bd->td", _turns(int(known.sum())), signed)  # too thin for threads of BLAS to pay
    squares = (sums * sums).sum(axis=1)
    reached = float(signed.sum(axis=0) @ signed.sum(axis=0)) * (1 - 1e-12)
    return float((squares >= reached).mean())


@cache
def _turns(count: int) -> Floats:
    """Rows of ±1: the first is the blocks as they are, and the first block always is, since only lengths matter."""
    if 2 ** (count - 1) <= MOST_TURNS:
        numbers = np.arange(2 ** (count - 1))[:, None]
        return np.where(numbers >> np.arange(count) & 1, -1.0, 1.0)
    turns = np.random.default_rng(count).choice([-1.0, 1.0], (MOST_TURNS, count))
    turns[0] = 1.0
    return turns
