"""Where a series of nights changed: ruptures proposes places, an exact test of ranks accepts them or not.

A place is proposed by the least squared error of one or two breaks (Truong, Oudre and Vayatis, 2020, `ruptures`) in
the normal scores of the ranks, so that one wild night decides nothing. It is accepted by the test of Mann and Whitney
(1947), whose p holds whatever the values' distribution is, multiplied by the number of places that could have been
proposed (Bonferroni). Both halves of an accepted break are searched again, as in binary segmentation (Vostrikova,
1981).

It is no comparison of arms within a run, so it is not the judge's (`lab.analysis.inference.judge`), whose rate it
keeps: a site shows a change where there is none at one look in twenty at most, all its series taken together.

The promise: of nights that are independent and alike, the share of series with any change found is at most ``level``.
Nights that depend on their neighbours keep no such promise; `dependence` tells how much they do.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import ruptures
from numpy.typing import NDArray
from scipy import stats

from lab.analysis.inference.statistics import MAD_TO_SIGMA, Floats, mad

FEWEST = 3
"""So many nights lie on each side of a change; of less, one more night may be the opposite."""

GATE = 0.01
"""A place that was accepted stays only if its two neighbouring stretches differ by themselves at this level."""

EXACT, COUNTED = 20, 5_000_000
"""Up to so many values in the smaller group p is counted out, unless that takes more than so many steps. Otherwise
the normal approximation stands for it, which is the larger of the two where it matters: ranks have no tails.
"""

PROPOSED_AMONG = 2_000
"""Of a longer series the means of neighbours are searched, then the place is found within them."""

DEPENDENT = stats.norm.ppf(0.99)
ENOUGH_TO_TELL_DEPENDENCE = 12


def change_points(values: Floats, level: float) -> tuple[int, ...]:
    """The places in ``values``, ordered by time and all finite, from which on they were others; each is the index of
    the first new value.

    ``level`` bounds how often there is one at all in a series of independent, equally distributed values: the judge's
    `ALPHA` divided by the number of series that are looked at.
    """
    if len(values) < 2 * FEWEST or float(np.ptp(values)) == 0:
        return ()
    order = np.lexsort((np.random.default_rng(0).random(len(values)), values))  # ties are broken by lot, always alike
    ranks = np.empty(len(values))
    ranks[order] = np.arange(len(values), dtype=np.float64)
    found = sorted(_search(ranks, 0, level))
    return _kept(ranks, _settled(values, found))


def fewest_nights(level: float) -> int:
    """How many nights it takes, half of them changed beyond any doubt, until a change can be found at ``level``."""
    nights = 2 * FEWEST
    while _p_of_parted(nights, nights // 2) * _places(nights) * 2 > level:
        nights += 1
    return nights


def nights_until_found(before: int, level: float) -> int:
    """The same of what comes after ``before`` nights that were alike."""
    after = FEWEST
    while _p_of_parted(before + after, after) * _places(before + after) * 2 > level:
        after += 1
    return after


def dependence(values: Floats, points: tuple[int, ...]) -> tuple[float, bool]:
    """How much a night resembles the one before it (the correlation of the ranks within each stretch between
    changes), and whether that is more than chance would have in one of 100 series. (NaN, False) of too few nights.
    """
    stretches = [
        stats.rankdata(values[first:last]) / (last - first + 1) - 0.5
        for first, last in pairwise((0, *points, len(values)))
        if last - first >= 2 * FEWEST
    ]
    above = np.concatenate([each[1:] for each in stretches] or [np.empty(0)])
    below = np.concatenate([each[:-1] for each in stretches] or [np.empty(0)])
    spread = float((above**2).sum() * (below**2).sum())
    if len(above) < ENOUGH_TO_TELL_DEPENDENCE or spread == 0:
        return math.nan, False
    r = float((above * below).sum() / math.sqrt(spread))
    return r, r * math.sqrt(len(above)) > DEPENDENT


def _search(ranks: Floats, offset: int, level: float) -> Iterator[int]:
    """All places in a stretch, and in what they divide it into."""
    if len(ranks) < 2 * FEWEST:
        return
    places = next((places for p, places in _judged(ranks) if p <= level), ())
    if not places:
        return
    edges = (0, *places, len(ranks))
    yield from (offset + place for place in places)
    for first, last in pairwise(edges):
        yield from _search(ranks[first:last], offset + first, level)


def _judged(ranks: Floats) -> Iterator[tuple[float, tuple[int, ...]]]:
    """The best single break, then the best spell that differs from all around it, with p for all there could be.

    Each kind may use half of the level, hence twice the p. A spell counts only where no single break does: else its
    second edge would be accepted by what the first one parts.
    """
    n = len(ranks)
    scores = stats.norm.ppf((stats.rankdata(ranks) - 0.5) / n)
    for breaks in (1, 2):
        if n < (breaks + 1) * FEWEST:
            continue
        places = _proposed(scores, breaks)
        inside = np.zeros(n, bool)
        inside[places[0] : places[1] if breaks == 2 else n] = True
        many = _places(n) if breaks == 1 else n * (n - 1) / 2
        yield min(1.0, _p(ranks[inside], ranks[~inside]) * many * 2), places


def _proposed(scores: Floats, breaks: int) -> tuple[int, ...]:
    width = math.ceil(len(scores) / PROPOSED_AMONG)
    if width == 1:
        return _least_squares(scores, breaks)
    whole = len(scores) // width
    coarse = _least_squares(scores[: whole * width].reshape(whole, width).mean(axis=1), breaks)
    found = []
    for place in coarse:
        first, last = max(0, (place - FEWEST) * width), min(len(scores), (place + FEWEST) * width)
        found.append(first + _least_squares(scores[first:last], 1)[0])
    return tuple(found)


def _least_squares(scores: Floats, breaks: int) -> tuple[int, ...]:
    search = ruptures.KernelCPD(kernel="linear", min_size=FEWEST).fit(scores[:, None])
    return tuple(int(each) for each in search.predict(n_bkps=breaks)[:-1])


def _settled(values: Floats, found: list[int]) -> list[int]:
    """The same places, each moved to where the values themselves part best between its neighbours.

    Ranks tell whether there is a change, but hardly where: what lies near the others' edge has nearly their rank.
    What is far beyond both sides is drawn in to three of their deviations, so that one wild night does not move a
    place.
    """
    used = np.log(values) if (values > 0).all() else values
    places = list(found)
    for index, place in enumerate(found):
        first = places[index - 1] if index else 0
        last = places[index + 1] if index + 1 < len(places) else len(values)
        sides = used[first:place], used[place:last]
        spread = 3 * MAD_TO_SIGMA * max(mad(each) for each in sides)
        middles = [float(np.median(each)) for each in sides]
        window = np.clip(used[first:last], min(middles) - spread, max(middles) + spread)
        if len(window) >= 2 * FEWEST and float(np.ptp(window)) > 0:
            places[index] = first + _proposed(window, 1)[0]
    return places


def _kept(ranks: Floats, found: list[int]) -> tuple[int, ...]:
    """Without the places that were accepted in a larger stretch, but part nothing between their neighbours."""
    while found:
        edges = [0, *found, len(ranks)]
        ps = [_p(ranks[a:b], ranks[b:c]) for a, b, c in zip(edges, edges[1:], edges[2:], strict=False)]
        worst = int(np.argmax(ps))
        if ps[worst] <= GATE:
            break
        del found[worst]
    return tuple(found)


def _p(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """Of two groups of different ranks: that they are of one distribution, two-sided."""
    found = stats.mannwhitneyu(one, other, method="asymptotic")
    steps = min(found.statistic, len(one) * len(other) - found.statistic) * max(len(one), len(other))
    if min(len(one), len(other)) <= EXACT and steps <= COUNTED:
        found = stats.mannwhitneyu(one, other, method="exact")
    return float(found.pvalue)


def _places(nights: int) -> int:
    return nights - 2 * FEWEST + 1


def _p_of_parted(nights: int, group: int) -> float:
    """The smallest p that there is: a group of the nights lies above, or below, all others."""
    return 2 / math.comb(nights, group)
