"""Do three levels or more differ at all? One test for all of them together, within randomised complete blocks.

A block gives a vector: the contrasts of each further level with the first, or for an interaction those of each pair
of further levels. Where no level differs, each vector is noise around nothing. It is first turned and stretched so
that noise alike in all combinations points everywhere alike, with all combinations there or only some. Then follows
the F test of blocks by levels (Fisher 1925), each effect against its own scatter over the blocks. Levels needn't be
equally noisy: degrees of freedom are those of Box (1954), estimated as Greenhouse and Geisser (1959) do. For two
levels it is Student's t squared, as in `lab.analysis.inference.estimate`; and as there it is the same for every
number of blocks.
"""

from __future__ import annotations

import math

import numpy as np
import scipy

from lab.analysis.inference.estimate import FEWEST, Sessions, by_session
from lab.analysis.inference.statistics import Floats


def p_value(vectors: Floats, weights: Floats, sessions: Sessions = None) -> float:
    """How often blocks in which no level differs would look as different as these.

    ``vectors`` has a row of log contrasts per block; blocks that lack one are left out. ``weights`` has a row per
    contrast: how much each combination of levels counts in it. With three ``sessions`` or more, of each block, they
    count instead. NaN with fewer than ``FEWEST``.
    """
    whole = np.isfinite(vectors).all(axis=1)
    means = by_session(np.where(whole, vectors.T, np.nan), sessions).T
    values = means[np.isfinite(means).all(axis=1)]
    if len(values) < FEWEST:
        return math.nan
    if not values.any():
        return 1.0
    return _blocks_by_levels(_sphered(values, weights))


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
    return float(scipy.stats.f.sf(count * float(means @ means) / total, freedom, (count - 1) * freedom))
