"""What each of many runs says of its quantities, as `lab.analysis.summary` has it, for thousands of runs at once.

The usual run is computed in columns, a hundred runs at a time. One with several sessions, with blocks that are left
out, or with an instance that failed to start (and so is censored) goes the long way, through `summary` itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import stats
from scipy.stats import mstats

from lab.analysis.data import TWIN
from lab.analysis.inference.estimate import ENOUGH_FOR_ORDER, FEWEST
from lab.analysis.inference.statistics import LEVEL, Floats
from lab.analysis.loaded import load
from lab.analysis.many import load_many, named
from lab.analysis.quantities import is_key
from lab.analysis.summary import CENSORED
from lab.errors import LabError
from lab.results.record import Run

READ = ("quantity", "value", "unit", "arm", "block", "status", "state", "warmup")
AT_ONCE = 128
KEYS = ["run", "quantity", "state", "arm", "unit"]


class Point(NamedTuple):
    """One quantity of one arm in one run: values in ``unit``, None where there is none; ``low`` and ``high`` are the
    median's interval of 95 % over blocks.
    """

    quantity: str
    state: str
    arm: str
    unit: str
    n: int
    failed: int
    median: float | None
    low: float | None
    high: float | None


def points(
    runs: Mapping[Path, Run],
    *,
    everything: bool = False,
    skipped: Callable[[LabError], None],
    progress: Callable[[int], None] = lambda done: None,
) -> Iterator[tuple[Path, list[Point]]]:
    """Of each run that can be read, in their order within a batch of `AT_ONCE`: its judged quantities, or with
    ``everything`` all. A/A twins are left out. ``skipped`` hears of a folder that can't be read; ``progress`` of how
    many were.
    """
    paths = list(runs)
    for start in range(0, len(paths), AT_ONCE):
        batch = paths[start : start + AT_ONCE]
        plain = [path for path in batch if _is_plain(runs[path])]
        found = _together(plain, everything, skipped)
        for path in batch:
            if path in found:
                yield path, found[path]
            elif path not in plain or _has_samples(path):
                try:
                    yield path, _alone(path, everything)
                except LabError as error:
                    skipped(error)
        progress(start + len(batch))


def _is_plain(run: Run) -> bool:
    return not run.settings.get("exclude_noisy") and run.settings.get("sessions") in (None, 1)


def _has_samples(path: Path) -> bool:
    return (path / "samples.jsonl").exists() or (path / "samples.parquet").exists()


def _alone(path: Path, everything: bool) -> list[Point]:
    table = load(path).summary()
    return [
        Point(
            quantity=row["quantity"], state=row["state"], arm=row["arm"], unit=row["unit"], n=int(row["n"]),
            failed=int(row["failed"] + row["timeout"]), median=_number(row["median"]), low=_number(row["low"]),
            high=_number(row["high"]),
        )
        for row in table.to_dict("records")
        if not row["arm"].endswith(TWIN) and (everything or is_key(row["quantity"]))
    ]  # fmt: skip


def _together(
    paths: Sequence[Path], everything: bool, skipped: Callable[[LabError], None]
) -> dict[Path, list[Point]]:
    """Without those that are to be looked at one by one."""
    frame = load_many(paths, columns=READ, skipped=skipped)
    if frame.empty:
        return {}
    frame = frame[~frame["warmup"].astype(bool) & (frame["unit"] != "answer") & (frame["arm"] != "")]
    quantities = [str(name) for name in frame["quantity"].unique() if everything or is_key(str(name))]
    frame = frame[frame["quantity"].isin(quantities) & ~frame["arm"].astype(str).str.endswith(TWIN)]
    if frame.empty:
        return {}
    failed = frame.loc[(frame["quantity"] == CENSORED) & frame["value"].isna(), "run"].unique()
    frame = frame[~frame["run"].isin(failed)]
    table = frame.groupby(KEYS, observed=True, sort=False)["value"].agg(["size", "count", "median"])
    blocks = frame.groupby([*KEYS, "block"], observed=True, sort=False)["value"].median().dropna()
    table = table.join(_intervals(blocks))
    by_name = {named(path): path for path in paths}
    found: dict[Path, list[Point]] = {}
    for row in table.reset_index().itertuples(index=False):
        run, quantity, state, arm, unit, size, count, median, low, high = row
        found.setdefault(by_name[str(run)], []).append(
            Point(
                str(quantity), str(state), str(arm), str(unit), int(count), int(size - count), _number(median),
                _number(low), _number(high),
            )
        )  # fmt: skip
    return found


def _intervals(blocks: pd.Series) -> pd.DataFrame:
    """Of the blocks' medians of each group: `lab.analysis.inference.estimate.median_interval`, for all at once."""
    values = blocks.to_numpy(dtype=np.float64)
    groups = blocks.groupby(level=KEYS, observed=True, sort=False)
    number = groups.ngroup().to_numpy()
    order = np.lexsort((values, number))
    values, number = values[order], number[order]
    counts = np.bincount(number)
    starts = np.cumsum(counts) - counts
    low, high = np.full(len(counts), math.nan), np.full(len(counts), math.nan)
    for n in np.unique(counts):
        which = np.flatnonzero(counts == n)
        matrix = values[starts[which][:, None] + np.arange(n)]
        if n >= ENOUGH_FOR_ORDER:
            first, last = _order_positions(int(n))
            low[which], high[which] = _at_position(matrix, first), _at_position(matrix, last)
        elif n >= FEWEST:
            low[which], high[which] = _student(matrix)
    index = blocks.reset_index("block", drop=True).index
    index = index[~index.duplicated()]
    return pd.DataFrame({"low": low, "high": high}, index=index)


@cache
def _order_positions(n: int) -> tuple[float, float]:
    """Between which order statistics the interval lies: it is linear in them."""
    low, high = mstats.median_cihs(np.arange(n, dtype=np.float64), 1 - LEVEL)
    return float(low), float(high)


def _at_position(matrix: Floats, position: float) -> Floats:
    below = min(int(position), matrix.shape[1] - 2)
    found: Floats = matrix[:, below] + (position - below) * (matrix[:, below + 1] - matrix[:, below])
    return found


def _student(matrix: Floats) -> tuple[Floats, Floats]:
    """On logarithms where all values are positive."""
    positive = np.all(matrix > 0, axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        used = np.where(positive[:, None], np.log(matrix), matrix)
    n = matrix.shape[1]
    half = stats.t.ppf((1 + LEVEL) / 2, n - 1) * used.std(axis=1, ddof=1) / math.sqrt(n)
    middle = used.mean(axis=1)
    low, high = middle - half, middle + half
    with np.errstate(over="ignore"):
        low, high = np.where(positive, np.exp(low), low), np.where(positive, np.exp(high), high)
    return np.where(np.all(matrix >= 0, axis=1), np.maximum(low, 0.0), low), high


def _number(value: float) -> float | None:
    return float(f"{value:.6g}") if math.isfinite(value) else None
