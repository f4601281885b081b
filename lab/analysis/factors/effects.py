"""What factors do: main effects and interactions, as ratios, per backend and judged quantity.

A block holds every combination of levels once, so each block gives one value of every contrast, and whatever the
block did to all of its instances cancels out of it. Logarithms are compared, because a factor multiplies a time or a
size rather than adds to it (Box, Hunter and Hunter, "Statistics for Experimenters", 2005, chapter 5):

* the *main effect* of a level: its logarithm minus that of the factor's first level, averaged over all combinations
  of the other factors. It is the geometric mean of the ratios;
* the *interaction* of two factors: the effect of the one at a level of the other, minus its effect at the other's
  first level: a ratio of ratios, 1 where the two effects simply multiply. The backend is a factor too: does more
  memory do to one what it does to the other?
* *overall*, of a factor with three levels or more, and of each of its interactions: do any of them differ?

The blocks' contrasts go through `lab.analysis.inference.estimate`, overall tests through
`lab.analysis.inference.overall`, and all of them to `lab.analysis.inference.judge`. Main effects on headline
quantities, of all backends, are one headline family; interactions and all other quantities are exploratory. An
overall test is one more member of its family and no gate: comparisons with a first level need none before them (Hsu,
"Multiple Comparisons", 1996).
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, groupby
from typing import Any, TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lab.analysis.data import Observed, sessions_of
from lab.analysis.factors.cubes import Cube, cubes
from lab.analysis.inference import overall
from lab.analysis.inference import statistics as st
from lab.analysis.inference.estimate import FEWEST, Sessions, by_session, estimates
from lab.analysis.inference.judge import ALPHA, EXPLORATORY, HEADLINE, judge
from lab.analysis.quantities import is_headline

T = TypeVar("T", bound=np.generic)
BACKEND = "backend"
"""What the backend is called where it is a factor of an interaction."""

EVERY = "*"
"""The level of an overall test: all of them together. No level can be called so."""

COLUMNS = (
    "backend", "quantity", "state", "unit", "factor", "level", "against", "other", "other_level", "other_against",
    "n", "ratio", "low", "high", "cells", "of_cells", "censored", "base_censored", "family", "p", "adjusted",
    "verdict", "claim", "why", "shows", "needs", "units", "per",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Contrast:
    """One effect: a value per block, how much each combination counts in it, how many it rests on of those that were
    run, and failures above and below the line.
    """

    names: Mapping[str, Any]
    values: st.Floats
    weights: st.Floats
    cells: tuple[int, int]
    censored: tuple[int, int]


def effects(loaded: Observed) -> pd.DataFrame:
    """A row per effect of a key quantity; none for a run without factors.

    Columns: backend, quantity, state, unit; factor, level and against (the factor's first level); other, other_level
    and other_against ("" for a main effect, else the factor it interacts with, `BACKEND` among them); n (blocks);
    ratio, low and high (interval, 95 %); cells of of_cells (combinations of the other factors that it rests on, of
    those that were run: fewer where some never succeeded); censored and base_censored (failures at the level, and at
    the one it is compared with); and those of `lab.analysis.inference.judge.Judgement`, with claim.

    An overall test has `EVERY` as its level, and as other_level in an interaction of two factors. Its ratio is the
    largest between any two levels; it has no interval, and its cells are those of all comparisons in it.
    """
    measured = loaded.measured
    blocks = np.sort(measured["block"].unique()).astype(np.int64)
    return effects_of(list(cubes(loaded)), sessions_of(measured, blocks))


def effects_of(found: Sequence[Cube], sessions: Sessions = None) -> pd.DataFrame:
    """The table of `effects` out of cubes that share their blocks."""
    groups = [
        [(cube, contrast) for cube, contrast in group if contrast.cells[1]]
        for _, group in groupby(_contrasts(found), key=lambda pair: _effect(*pair))
    ]
    singles = [pair for group in groups for pair in group]
    if not singles:
        return pd.DataFrame(columns=list(COLUMNS))
    numbers = estimates(np.stack([contrast.values for _, contrast in singles]), sessions).to_dict("records")
    estimated = iter(numbers)
    rows = []
    for group in groups:
        rows += [_row(cube, contrast, next(estimated)) for cube, contrast in group]
        if len(group) > 1:
            rows.append(_overall(group, sessions))
    for row in rows:
        row["bar"] = _bar(row)
        failed = row["censored"] or row["base_censored"]
        row["bar_same"] = row["bar"] or ("instances failed: the same only where none did" if failed else "")
    families = [
        HEADLINE if not row["other"] and is_headline(row["quantity"], row["state"]) else EXPLORATORY for row in rows
    ]
    per = "blocks" if sessions is None else "sessions"
    return judge(pd.DataFrame(rows), pd.Series(families), per=per)[list(COLUMNS)]


def _effect(cube: Cube, contrast: _Contrast) -> tuple[str, ...]:
    """Which effect a contrast is one comparison of: an interaction with the backend is one of two backends."""
    names = contrast.names
    other = names.get("other", "")
    base = names["other_against"] if other == BACKEND else ""
    return cube.backend, cube.quantity, cube.state, names["factor"], other, base


def _row(cube: Cube, contrast: _Contrast, numbers: Mapping[Any, Any]) -> dict[str, Any]:
    return {
        "backend": cube.backend, "quantity": cube.quantity, "state": cube.state, "unit": cube.unit,
        "other": "", "other_level": "", "other_against": "", **contrast.names, **numbers,
        "n": int(np.isfinite(contrast.values).sum()), "cells": contrast.cells[0], "of_cells": contrast.cells[1],
        "censored": contrast.censored[0], "base_censored": contrast.censored[1],
    }  # fmt: skip


def _overall(group: Sequence[tuple[Cube, _Contrast]], sessions: Sessions) -> dict[str, Any]:
    """The row of all comparisons of one effect together."""
    cube = group[0][0]
    contrasts = [contrast for _, contrast in group]
    first = contrasts[0].names
    vectors = np.stack([each.values for each in contrasts], axis=1)
    whole = np.isfinite(vectors).all(axis=1)
    failures = max(sum(each.censored) for each in contrasts)
    names = {**first, "level": EVERY} | ({"other_level": EVERY} if first.get("other", BACKEND) != BACKEND else {})
    together = _Contrast(
        names, np.where(whole, 0.0, np.nan), np.empty(0),
        (sum(each.cells[0] for each in contrasts), sum(each.cells[1] for each in contrasts)), (failures, failures),
    )  # fmt: skip
    p = overall.p_value(vectors, np.stack([each.weights for each in contrasts]), sessions)
    ratio = math.nan
    if whole.any():
        ratio = overall.spread(_table([each.names for each in contrasts], vectors[whole].mean(axis=0)))
    units = int(np.isfinite(by_session(np.where(whole, 0.0, np.nan)[None], sessions)).sum())
    nothing = dict.fromkeys(("low", "high", "same", "scatter"), math.nan)
    return _row(cube, together, {**nothing, "ratio": ratio, "p": p, "units": units})


def _table(names: Sequence[Mapping[str, Any]], values: st.Floats) -> st.Floats:
    """The comparisons of one effect as `overall.spread` wants them."""
    rows = list(dict.fromkeys(each["level"] for each in names))
    columns = list(dict.fromkeys(each.get("other_level", "") for each in names))
    table = np.zeros((len(rows) + 1, len(columns) + 1))
    table[1:, 1:] = np.nan
    for each, value in zip(names, values, strict=True):
        table[rows.index(each["level"]) + 1, columns.index(each.get("other_level", "")) + 1] = value
    return table


def _contrasts(found: Sequence[Cube]) -> Iterator[tuple[Cube, _Contrast]]:
    """Every comparison, those of one effect one after the other."""
    first: dict[tuple[str, str, str, str], tuple[Cube, _Contrast]] = {}
    for cube in found:
        for axis, (name, levels) in enumerate(cube.factors, start=1):
            mains = [_main(cube, axis, level) for level in levels[1:]]
            yield from ((cube, main) for main in mains)
            across: list[_Contrast] = []
            for level, main in zip(levels[1:], mains, strict=True):
                key = (cube.quantity, cube.state, name, f"{level}/{levels[0]}")
                base, other = first.setdefault(key, (cube, main))
                if base is not cube:
                    across.append(_across_backends(cube, main, base, other))
            across.sort(key=lambda each: each.names["other_against"])
            yield from ((cube, each) for each in across)
        for one, two in combinations(range(1, len(cube.factors) + 1), 2):
            for level in cube.factors[one - 1][1][1:]:
                for other_level in cube.factors[two - 1][1][1:]:
                    yield cube, _interaction(cube, one, level, two, other_level)


def _main(cube: Cube, axis: int, level: str) -> _Contrast:
    name, levels = cube.factors[axis - 1]
    above = levels.index(level)
    differences = _at(cube.probed, axis, above) - _at(cube.probed, axis, 0)
    there = _at(cube.there, axis - 1, above) & _at(cube.there, axis - 1, 0)
    failures = _at(cube.failures, axis - 1, above)[there].sum(), _at(cube.failures, axis - 1, 0)[there].sum()
    return _Contrast(
        {"factor": name, "level": level, "against": levels[0]},
        *_averaged(differences, there, cube.blocks),
        (int(failures[0]), int(failures[1])),
    )


def _interaction(cube: Cube, one: int, level: str, two: int, other_level: str) -> _Contrast:
    (name, levels), (other, other_levels) = cube.factors[one - 1], cube.factors[two - 1]
    difference = _at(cube.probed, one, levels.index(level)) - _at(cube.probed, one, 0)
    axis = two - 1  # the first factor's axis is gone, and is before
    differences = _at(difference, axis, other_levels.index(other_level)) - _at(difference, axis, 0)
    names = {
        "factor": name, "level": level, "against": levels[0],
        "other": other, "other_level": other_level, "other_against": other_levels[0],
    }  # fmt: skip
    both = [0, levels.index(level)], [0, other_levels.index(other_level)]
    failures = int(cube.failures.take(both[0], one - 1).take(both[1], two - 1).sum())
    corner = np.moveaxis(cube.there.take(both[0], one - 1).take(both[1], two - 1), (one - 1, two - 1), (0, 1))
    there = np.asarray(corner.all(axis=(0, 1)))
    return _Contrast(names, *_averaged(differences, there, cube.blocks), (failures, failures))


def _at(array: NDArray[T], axis: int, index: int) -> NDArray[T]:
    """``array`` where ``axis`` is at ``index``; that axis is gone."""
    return np.asarray(np.moveaxis(array, axis, 0)[index])


def _across_backends(cube: Cube, main: _Contrast, base: Cube, other: _Contrast) -> _Contrast:
    """What a factor does to one backend, over what it does to another in the same blocks."""
    names = {**main.names, "other": BACKEND, "other_level": cube.backend, "other_against": base.backend}
    failures = sum(main.censored) + sum(other.censored)
    weights = np.concatenate([main.weights, -other.weights])
    return _Contrast(names, main.values - other.values, weights, main.cells, (failures, failures))


def _averaged(
    differences: st.Floats, there: NDArray[np.bool_], blocks: int
) -> tuple[st.Floats, st.Floats, tuple[int, int]]:
    """Per block the mean over all combinations, the same of what is behind the blocks, and how many combinations were
    ever seen, of how many that were run.
    """
    flat = differences.reshape(len(differences), -1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of a block in which nothing succeeded: it stays NaN
        means: st.Floats = np.nanmean(flat, axis=1)
    seen = np.isfinite(flat[:blocks]).any(axis=0)
    return means[:blocks], means[blocks:], (int(seen.sum()), int(there.sum()))


def _bar(row: Mapping[str, Any]) -> str:
    """What stands against any claim, whatever the numbers say; "" for nothing."""
    if row["n"] < FEWEST:
        return f"only {row['n']} block{'s' * (row['n'] != 1)} with {'all' if row['level'] == EVERY else 'both'}"
    if row["level"] == EVERY and row["p"] > ALPHA:
        return "together they don't differ clearly"
    if (row["other"] or row["level"] == EVERY) and (row["censored"] or row["base_censored"]):
        return "instances failed: what is left is no fair comparison of effects"
    if row["censored"] and row["ratio"] < 1:
        return f"{row['level']} failed at times: less only where it did not"
    if row["base_censored"] and row["ratio"] > 1:
        return f"{row['against']} failed at times: more only than where it did not"
    return ""
