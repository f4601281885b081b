"""Hosts together: random effects, and what the next host may be expected to show.

A host has an effect of its own, the logarithm of a ratio, and these effects scatter around a mean with the standard
deviation τ. What is known of each is an estimate and its variance. τ² is that of Paule and Mandel (1982), by
`statsmodels.stats.meta_analysis.combine_effects`. The interval of the mean is that of Hartung and Knapp (2001), and
never narrower than the one that takes the variances for known (Knapp and Hartung 2003, section 4.2): with few hosts
the usual one is much too narrow. I² is that of Higgins and Thompson (2002). The prediction interval is that of
Higgins, Thompson and Spiegelhalter (2009, section 4.1), with the same variance of the mean.

How often each of these holds the truth is simulated: docs/statistics.md.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass

import numpy as np
from scipy import stats as distributions
from statsmodels.stats.meta_analysis import combine_effects
from statsmodels.stats.oneway import anova_generic

from lab.analysis.inference.estimate import FEWEST, MARGIN
from lab.analysis.inference.statistics import LEVEL, Floats

SUREST = 1e-3
"""No host's estimate counts as surer than this standard error of a logarithm, 0.1 %: what did not vary in a few
blocks (a size in pages) would weigh more than all other hosts together.
"""

TOLERANCE = 1e-3
"""Where statsmodels' search for τ² may stop, in units of Q. Its own, 1e-5, is so near to the precision of Q over many
hosts that Q is sometimes a little too small at the root, which it takes for τ² = 0 (4 of 8,500 tries). The error that
this leaves in τ² is below a thousandth of the hosts' own variance.
"""

FEWEST_OTHERS = FEWEST
"""So many other hosts it takes to say that one disagrees with them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Combined:
    """``count`` hosts' logarithms of a ratio, together.

    ``error`` is the standard error of ``mean``; ``tau2`` the variance between hosts, ``i2`` the share of the scatter
    that is more than the hosts' own noise explains, ``p_alike`` how often hosts that are all alike would scatter so.
    ``low`` and ``high`` are the interval of the mean, ``next_low`` and ``next_high`` that of the next host's true
    effect, both of 95 %. ``p`` and ``same`` are as in `lab.analysis.inference.estimate.estimates`. What too few hosts
    don't tell is NaN: with one all but the mean, with two the intervals.
    """

    count: int
    mean: float
    error: float = math.nan
    tau2: float = math.nan
    i2: float = math.nan
    p_alike: float = math.nan
    low: float = math.nan
    high: float = math.nan
    next_low: float = math.nan
    next_high: float = math.nan
    p: float = math.nan
    same: float = math.nan

    @property
    def scatter(self) -> float:
        """What the standard deviation of so many equal observations would be."""
        return self.error * math.sqrt(self.count)


def combined(effects: Floats, variances: Floats, freedoms: Floats | None = None) -> Combined:
    """Hosts' log ratios and the variances of these, together. There has to be one at least. ``freedoms`` says by how
    many degrees of freedom each variance is known; without, they are taken for exact.
    """
    count = len(effects)
    if count == 1:
        return Combined(count=1, mean=float(effects[0]))
    floored = np.fmax(variances, SUREST**2)
    mean, variance, tau2, q = _fitted(effects, floored)
    error = math.sqrt(variance)
    told = {
        "tau2": tau2,
        "i2": max(0.0, 1 - (count - 1) / q) if q > 0 else 0.0,
        "p_alike": float(distributions.chi2.sf(q, count - 1))
        if freedoms is None
        else _alike(effects, floored, freedoms),
    }
    if count < FEWEST:
        return Combined(count=count, mean=mean, error=error, **told)
    t = distributions.t(count - 1)
    reach = error * float(t.ppf((1 + LEVEL) / 2))
    ahead = math.sqrt(tau2 + variance) * float(distributions.t.ppf((1 + LEVEL) / 2, count - 2))
    margin = math.log(MARGIN)
    return Combined(
        count=count, mean=mean, error=error, **told,
        low=mean - reach, high=mean + reach, next_low=mean - ahead, next_high=mean + ahead,
        p=float(2 * t.sf(abs(mean) / error)), same=float(t.sf((margin - abs(mean)) / error)),
    )  # fmt: skip


def apart(effects: Floats, variances: Floats, freedoms: Floats) -> tuple[Floats, Floats]:
    """How far each host lies from what the others predict for it, and how often one of them would lie as far.

    The first is the standardised residual of a host that is left out (Viechtbauer and Cheung 2010): its distance from
    the others' mean, in units of its own standard error, theirs and τ together. Student's t gives the p, with the
    degrees of freedom of a prediction from the others, or those of Satterthwaite (1946) out of the host's own
    ``freedoms`` and the others' where they are fewer. NaN with fewer than `FEWEST_OTHERS` others. A p is of one host
    alone: of many, the least is small by chance.
    """
    count = len(effects)
    residuals, p_values = np.full((2, count), math.nan)
    if count <= FEWEST_OTHERS:
        return residuals, p_values
    floored = np.fmax(variances, SUREST**2)
    for place in range(count):
        others = np.arange(count) != place
        mean, variance, tau2, _ = _fitted(effects[others], floored[others])
        own, theirs = floored[place], tau2 + variance
        residuals[place] = (effects[place] - mean) / math.sqrt(own + theirs)
        both = (own + theirs) ** 2 / (own**2 / freedoms[place] + theirs**2 / (count - 3))
        freedom = min(float(count - 3), both)
        p_values[place] = 2 * distributions.t.sf(abs(residuals[place]), freedom)
    return residuals, p_values


def _alike(effects: Floats, variances: Floats, freedoms: Floats) -> float:
    """Welch's test (1951) that all are alike. Cochran's, which takes the variances for exact, says of 50 hosts with
    ten blocks each that they differ in 38 of 100 cases in which they don't.
    """
    counts = freedoms + 1
    return float(anova_generic(effects, variances * counts, counts, use_var="unequal").pvalue)


def _fitted(effects: Floats, variances: Floats) -> tuple[float, float, float, float]:
    """The mean, its variance, τ² and Cochran's Q."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of I², where Q is 0
        found = combine_effects(effects, variances, method_re="iterated", atol=TOLERANCE)
    variance = max(float(found.var_hksj_re), float(found.var_eff_w_re))
    return float(found.mean_effect_re), variance, float(found.tau2), max(float(found.q), 0.0)
