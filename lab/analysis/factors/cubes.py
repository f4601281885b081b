"""One quantity at every combination of the factors' levels, block by block: what effects are made of."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lab.analysis.data import TWIN, Observed
from lab.analysis.inference import statistics as st
from lab.analysis.quantities import is_key


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

    @property
    def blocks(self) -> int:
        """How many there are."""
        return len(self.logs)

    @property
    def probed(self) -> st.Floats:
        """``logs``, and behind the blocks one more for each combination, in which it is 1 and all others are 0.

        What a contrast makes of those is how much each combination counts in it.
        """
        units = np.eye(self.there.size).reshape(self.there.size, *self.there.shape)
        units[:, ~self.there] = np.nan
        return np.concatenate([self.logs, units])

    def means(self, one: int, two: int) -> st.Floats:
        """Geometric means over the blocks and all factors but two, in ``unit``.

        A row per level of the first of the two, a column per level of the second.
        """
        axes = tuple(axis for axis in range(self.logs.ndim) if axis not in (one + 1, two + 1))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # of a combination in which nothing ever succeeded
            result: st.Floats = np.exp(np.nanmean(self.logs, axis=axes))
        return result


def cubes(loaded: Observed) -> Iterator[Cube]:
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


def _levels(loaded: Observed, backend: str) -> tuple[tuple[str, tuple[str, ...]], ...]:
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
