"""What factors do: main effects and interactions, as ratios, per backend and judged quantity.

A block holds every combination of levels once, so each block gives one value of every contrast, and whatever the
block did to all of its instances cancels out of it. Logarithms are compared, because a factor multiplies a time or a
size rather than adds to it (Box, Hunter and Hunter, "Statistics for Experimenters", 2005, chapter 5):

* the *main effect* of a level: its logarithm minus that of the factor's first level, averaged over all combinations
  of the other factors. It is the geometric mean of the ratios;
* the *interaction* of two factors: the effect of the one at a level of the other, minus its effect at the other's
  first level: a ratio of ratios, 1 where the two effects simply multiply. The backend is a factor too: does more
  memory do to one what it does to the other?

The blocks' contrasts go through the machinery of `lab.analysis.inference`, all effects that are judged through Holm's
correction, and a claim must be larger than what the A/A pair shows of noise.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lab.analysis import inference
from lab.analysis import statistics as st
from lab.analysis.compare import ALPHA, BORROWED
from lab.analysis.data import TWIN, Loaded, sessions_of
from lab.analysis.quantities import is_key

T = TypeVar("T", bound=np.generic)
BACKEND = "backend"
"""What the backend is called where it is a factor of an interaction."""

COLUMNS = (
    "backend", "quantity", "state", "unit", "factor", "level", "against", "other", "other_level", "other_against",
    "n", "ratio", "low", "high", "p", "adjusted", "band_high", "band_of", "cells", "of_cells", "censored",
    "base_censored", "claim", "why", "seems",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Cube:
    """One quantity of one backend at every combination of its factors' levels.

    ``logs`` has an axis for the blocks, then one per factor, in which the first level comes first: logarithms of each
    block's median, NaN where nothing succeeded. Without the axis of blocks, ``failures`` counts what did not, and
    ``there`` says which combinations were run at all: some can't be.
    """

    backend: str
    quantity: str
    state: str
    unit: str
    factors: tuple[tuple[str, tuple[str, ...]], ...]
    logs: st.Floats
    failures: st.Floats
    there: NDArray[np.bool_]

    def means(self, one: int, two: int) -> st.Floats:
        """Geometric means over the blocks and all factors but two, in ``unit``.

        A row per level of the first of the two, a column per level of the second.
        """
        axes = tuple(axis for axis in range(self.logs.ndim) if axis not in (one + 1, two + 1))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # of a combination in which nothing ever succeeded
            result: st.Floats = np.exp(np.nanmean(self.logs, axis=axes))
        return result


@dataclass(frozen=True, slots=True)
class _Contrast:
    """One effect: a value per block, how many combinations it rests on, and failures above and below the line."""

    names: Mapping[str, Any]
    values: st.Floats
    cells: tuple[int, int]
    censored: tuple[int, int]


Bands = Mapping[tuple[str, str], tuple[float, str]]
"""By quantity and state, how much the A/A pair differs from itself at the most, and the quantity it was seen on."""


def effects(loaded: Loaded, ratios: pd.DataFrame | None = None) -> pd.DataFrame:
    """A row per effect of a judged quantity; none for a run without factors. ``ratios`` are the run's, if known.

    Columns: backend, quantity, state, unit; factor, level and against (the factor's first level); other, other_level
    and other_against ("" for a main effect, else the factor it interacts with, `BACKEND` among them); n (blocks);
    ratio, low and high (interval, 95 %), p, adjusted (Holm's, over all rows); band_high and band_of (the A/A band, as
    in `lab.analysis.compare.ratios`); cells of of_cells (combinations of the other factors that it rests on, of those
    that were run: fewer where some never succeeded); censored and base_censored (failures at the level, and at the
    one it is compared with); claim, why not when it is False, and seems: only Holm's correction stands against it,
    which more blocks would decide.
    """
    bands = _bands(loaded.ratios() if ratios is None else ratios)
    measured = loaded.measured
    blocks = np.sort(measured["block"].unique()).astype(np.int64)
    return effects_of(list(cubes(loaded)), bands, sessions_of(measured, blocks))


def cubes(loaded: Loaded) -> Iterator[Cube]:
    """Every judged quantity of every backend that has a factor, in the order of the backends."""
    measured = loaded.measured
    blocks = np.sort(measured["block"].unique())
    judged = measured[measured["quantity"].map(is_key).astype(bool)]
    groups = dict(list(judged.groupby(["backend", "quantity", "state"], sort=False, observed=True)))
    for backend in dict.fromkeys(arm.backend for arm in loaded.arms):
        levels = _levels(loaded, backend)
        shape = tuple(len(each) for _, each in levels)
        cells = {
            arm.label: tuple(each.index(arm.factors[name]) for name, each in levels)
            for arm in loaded.arms
            if arm.backend == backend
        }
        if len(cells) < 2:
            continue
        there = np.zeros(shape, dtype=np.bool_)
        for cell in cells.values():
            there[cell] = True
        for (owner, quantity, state), group in groups.items():
            if owner == backend:
                logs, failures = np.full((len(blocks), *shape), np.nan), np.zeros(shape)
                for arm, rows in group.groupby("arm", observed=True):
                    if str(arm).endswith(TWIN):
                        continue
                    failures[cells[str(arm)]] = int(rows["value"].isna().sum())
                    medians = rows.groupby("block")["value"].median().reindex(blocks)
                    place: Any = (slice(None), *cells[str(arm)])
                    logs[place] = np.log(medians.where(medians > 0).to_numpy(dtype=np.float64))
                yield Cube(
                    backend=backend, quantity=str(quantity), state=str(state), unit=str(group["unit"].iloc[0]),
                    factors=levels, logs=logs, failures=failures, there=there,
                )  # fmt: skip


def _levels(loaded: Loaded, backend: str) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """The factors that vary for a backend, and its levels of each in the order in which they were named."""
    recorded = {raw["name"]: raw["levels"] for raw in loaded.run.settings.get("factors", [])}
    seen: dict[str, dict[str, None]] = {}
    for arm in loaded.run.arms:
        if arm.backend == backend:
            for name, level in arm.factors.items():
                seen.setdefault(name, {})[level] = None
    return tuple(
        (name, tuple(sorted(levels, key=list(recorded.get(name, levels)).index)))
        for name, levels in seen.items()
        if len(levels) > 1
    )


def effects_of(found: Sequence[Cube], bands: Bands, sessions: inference.Sessions = None) -> pd.DataFrame:
    """The table of `effects` out of cubes that share their blocks."""
    pairs = [(cube, contrast) for cube, contrast in _contrasts(found) if contrast.cells[1]]
    if not pairs:
        return pd.DataFrame(columns=list(COLUMNS))
    numbers = inference.contrasts(np.stack([contrast.values for _, contrast in pairs]), sessions)
    rows = []
    for (cube, contrast), (ratio, low, high, p) in zip(pairs, numbers.tolist(), strict=True):
        band_high, band_of = bands.get((cube.quantity, cube.state), bands.get(BORROWED, (math.nan, "")))
        rows.append(
            {
                "backend": cube.backend, "quantity": cube.quantity, "state": cube.state, "unit": cube.unit,
                "other": "", "other_level": "", "other_against": "", **contrast.names,
                "n": int(np.isfinite(contrast.values).sum()), "ratio": ratio, "low": low, "high": high, "p": p,
                "band_high": band_high, "band_of": band_of,
                "cells": contrast.cells[0], "of_cells": contrast.cells[1],
                "censored": contrast.censored[0], "base_censored": contrast.censored[1],
            }
        )  # fmt: skip
    adjusted = inference.holm(numbers[:, 3])
    for row, value in zip(rows, adjusted, strict=True):
        row["adjusted"] = float(value)
        alone, many = _why_not(row), _why_not_among_many(row)
        row["why"] = alone or many
        row["claim"] = not row["why"]
        row["seems"] = bool(many) and not alone
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _contrasts(found: Sequence[Cube]) -> Iterator[tuple[Cube, _Contrast]]:
    first: dict[tuple[str, str, str, str], tuple[Cube, _Contrast]] = {}
    for cube in found:
        for axis, (name, levels) in enumerate(cube.factors, start=1):
            for level in levels[1:]:
                main = _main(cube, axis, level)
                yield cube, main
                base, other = first.setdefault(
                    (cube.quantity, cube.state, name, f"{level}/{levels[0]}"), (cube, main)
                )
                if base is not cube:
                    yield cube, _across_backends(cube, main, base, other)
        for one, two in combinations(range(1, len(cube.factors) + 1), 2):
            for level in cube.factors[one - 1][1][1:]:
                for other_level in cube.factors[two - 1][1][1:]:
                    yield cube, _interaction(cube, one, level, two, other_level)


def _main(cube: Cube, axis: int, level: str) -> _Contrast:
    name, levels = cube.factors[axis - 1]
    above = levels.index(level)
    differences = _at(cube.logs, axis, above) - _at(cube.logs, axis, 0)
    there = _at(cube.there, axis - 1, above) & _at(cube.there, axis - 1, 0)
    failures = _at(cube.failures, axis - 1, above)[there].sum(), _at(cube.failures, axis - 1, 0)[there].sum()
    return _Contrast(
        {"factor": name, "level": level, "against": levels[0]},
        *_averaged(differences, there),
        (int(failures[0]), int(failures[1])),
    )


def _interaction(cube: Cube, one: int, level: str, two: int, other_level: str) -> _Contrast:
    (name, levels), (other, other_levels) = cube.factors[one - 1], cube.factors[two - 1]
    difference = _at(cube.logs, one, levels.index(level)) - _at(cube.logs, one, 0)
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
    return _Contrast(names, *_averaged(differences, there), (failures, failures))


def _at(array: NDArray[T], axis: int, index: int) -> NDArray[T]:
    """``array`` where ``axis`` is at ``index``; that axis is gone."""
    return np.asarray(np.moveaxis(array, axis, 0)[index])


def _across_backends(cube: Cube, main: _Contrast, base: Cube, other: _Contrast) -> _Contrast:
    """What a factor does to one backend, over what it does to another in the same blocks."""
    names = {**main.names, "other": BACKEND, "other_level": cube.backend, "other_against": base.backend}
    failures = sum(main.censored) + sum(other.censored)
    return _Contrast(names, main.values - other.values, main.cells, (failures, failures))


def _averaged(differences: st.Floats, there: NDArray[np.bool_]) -> tuple[st.Floats, tuple[int, int]]:
    """Per block the mean over all combinations, and how many of them were ever seen, of how many that were run."""
    flat = differences.reshape(len(differences), -1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of a block in which nothing succeeded: it stays NaN
        means: st.Floats = np.nanmean(flat, axis=1)
    return means, (int(np.isfinite(flat).any(axis=0).sum()), int(there.sum()))


def _bands(ratios: pd.DataFrame) -> Bands:
    return {
        (str(row["quantity"]), str(row["state"])): (float(row["band_high"]), str(row["band_of"]))
        for row in ratios.to_dict("records")
    }


def _why_not(row: Mapping[str, Any]) -> str:
    """Empty when the effect could be claimed if it were the only one looked at."""
    if row["n"] < inference.FEWEST:
        return f"only {row['n']} block{'s' * (row['n'] != 1)} with both"
    if not (row["low"] > 1 or row["high"] < 1):
        return "the interval holds 1"
    if row["other"] and (row["censored"] or row["base_censored"]):
        return "instances failed: what is left is no fair comparison of effects"
    if row["censored"] and row["ratio"] < 1:
        return f"{row['level']} failed at times: less only where it did not"
    if row["base_censored"] and row["ratio"] > 1:
        return f"{row['against']} failed at times: more only than where it did not"
    if math.isnan(row["band_high"]):
        return "no A/A pair to compare with"
    if max(row["ratio"], 1 / row["ratio"]) <= row["band_high"]:
        return "no larger than what the A/A pair differs by"
    return ""


def _why_not_among_many(row: Mapping[str, Any]) -> str:
    """Empty when it stands Holm's correction too."""
    return (
        "" if row["adjusted"] <= ALPHA else f"one of many effects: p = {row['adjusted']:.2g} after Holm's correction"
    )
