"""What each run says: the ratio of every arm to the baseline, for ten thousand runs in bounded memory.

The figures are those of `lab.analysis.compare.ratios`, to the last digit, by the same estimator
(`lab.analysis.inference.estimate.estimates`): a test compares them. Only the way is another one, columns instead of
an object per observation, some hundred runs at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lab.analysis.compare import SET_BY_LAB
from lab.analysis.data import TWIN, Observed, counted, read
from lab.analysis.hosts.sources import Source
from lab.analysis.inference.estimate import FEWEST, estimates
from lab.analysis.inference.statistics import Floats
from lab.analysis.many import called, load_many
from lab.errors import LabError

AT_ONCE = 256
"""Runs whose observations are in memory together."""

COLUMNS = ("quantity", "value", "unit", "arm", "block", "status", "state", "warmup", "session", "resolution")
SERIES = ["run", "quantity", "state", "arm"]

Counts = NDArray[np.int64]
Truths = NDArray[np.bool_]
Heard = Callable[[LabError], None]


def ratios_of(sources: Sequence[Source], skipped: Heard | None = None) -> pd.DataFrame:
    """A row per run (its place in ``sources``), quantity, state and arm: log (the logarithm of the ratio), scatter
    and units as `lab.analysis.inference.estimate.estimates` has them; ``failed`` and ``against_failed`` (whether an
    instance of the arm, or of the baseline, died), ``unresolved`` (whether polling can't tell the two apart).

    A folder that can't be read raises ResultsError, unless ``skipped`` is there to hear of it.
    """
    parts = []
    for start in range(0, len(sources), AT_ONCE):
        some = sources[start : start + AT_ONCE]
        frame = _observed(some, skipped)
        if len(frame):
            found = _compared(frame, some)
            parts.append(found.assign(run=found["run"] + start))
    if not parts:
        return pd.DataFrame(columns=[*SERIES, "log", "scatter", "units", "failed", "against_failed", "unresolved"])
    for name in ("quantity", "state", "arm"):
        every = sorted({each for part in parts for each in part[name].cat.categories})
        parts = [part.assign(**{name: part[name].cat.set_categories(every)}) for part in parts]
    return pd.concat(parts, ignore_index=True)


def _observed(sources: Sequence[Source], skipped: Heard | None) -> pd.DataFrame:
    """What counts of these runs, ``run`` being the place of each."""
    plain = [place for place, source in enumerate(sources) if not source.excludes]
    paths = [sources[place].path for place in plain]
    frame = load_many(paths, columns=COLUMNS, skipped=skipped)
    names = dict(zip(called(paths), plain, strict=True))
    frame["run"] = frame["run"].map(names).astype(np.int64)
    parts = [counted(frame)]
    for place, source in enumerate(sources):
        if not source.excludes:
            continue
        try:
            parts.append(read(source.path, Observed).measured[list(COLUMNS)].assign(run=place))
        except LabError as error:
            if skipped is None:
                raise
            skipped(error)
    several = [part for part in parts if len(part)]
    return pd.concat(several, ignore_index=True) if several else parts[0]


def _compared(frame: pd.DataFrame, sources: Sequence[Source]) -> pd.DataFrame:
    seen = _Seen.of(frame, sources)
    good = ~np.isnan(seen.value)
    by_series = _Groups(seen.series[good])
    positive = by_series.spread(by_series.all(np.minimum, seen.value[good]) > 0)
    rows = np.flatnonzero(good)[positive]
    # a logarithm per block, of the arm's own and its twin's observations
    by_block = _Groups(seen.series[rows] * seen.blocks + seen.block[rows])
    logs = np.log(by_block.medians(seen.value[rows]))
    of, block = by_block.keys // seen.blocks, by_block.keys % seen.blocks
    pooled = _Groups(seen.without_twin(of) * seen.blocks + block)
    logs = pooled.means(logs)
    of, block = pooled.keys // seen.blocks, pooled.keys % seen.blocks
    session = pooled.all(np.maximum, by_block.all(np.maximum, seen.session[rows]))
    # minus that of the baseline in the same block
    there, place = _found(pooled.keys, seen.baseline_of(of) * seen.blocks + block)
    there &= of != seen.baseline_of(of)
    differences = (logs - logs[place])[there]
    unit = np.where(seen.in_sessions[seen.run_of(of)], session, block)[there]
    by_unit = _Groups(of[there] * seen.units + unit)
    observations, of = by_unit.means(differences), by_unit.keys // seen.units
    # to the left in a row each: the estimator asks for values, and not in which block they were
    by_arm = _Groups(of)
    matrix = np.full((len(by_arm.keys), int(by_arm.sizes.max(initial=1))), np.nan)
    matrix[by_arm.group, by_arm.rank] = observations[by_arm.order]
    found = estimates(matrix)
    table = seen.named(by_arm.keys).assign(
        log=np.log(found["ratio"].to_numpy()), scatter=found["scatter"].to_numpy(), units=found["units"].to_numpy()
    )
    below = seen.baseline_of(by_arm.keys)
    middles = [seen.middle(by_series, seen.value[good], keys) for keys in (by_arm.keys, below)]
    coarse = [
        seen.at(by_series, by_series.all(np.maximum, seen.resolution[good]), keys) for keys in (by_arm.keys, below)
    ]
    return table.assign(
        failed=seen.has_failed(~good, by_arm.keys), against_failed=seen.has_failed(~good, below),
        unresolved=np.abs(middles[0] - middles[1]) < np.fmax(*coarse),
    )  # fmt: skip


class _Groups:
    """Rows with the same key, and what can be said of each such group."""

    def __init__(self, keys: Counts) -> None:
        self._of = keys
        self.order = np.argsort(keys, kind="stable")
        ordered = keys[self.order]
        first = np.concatenate([[True], ordered[1:] != ordered[:-1]]) if len(keys) else np.zeros(0, bool)
        self._starts = np.flatnonzero(first)
        self.keys: Counts = ordered[self._starts]
        self.sizes: Counts = np.diff(np.append(self._starts, len(keys)))
        self.group: Counts = np.repeat(np.arange(len(self.keys)), self.sizes)  # of each row in order
        self.rank: Counts = np.arange(len(keys)) - np.repeat(self._starts, self.sizes)

    def all(self, function: np.ufunc, values: NDArray[Any]) -> NDArray[Any]:
        """``function`` of each group's values."""
        found: NDArray[Any] = function.reduceat(values[self.order], self._starts) if len(values) else values
        return found

    def means(self, values: Floats) -> Floats:
        found: Floats = self.all(np.add, values) / self.sizes
        return found

    def medians(self, values: Floats) -> Floats:
        if len(self.keys) == len(values):
            return values[self.order]
        ordered = values[np.lexsort((values, self._of))]
        low, high = self._starts + (self.sizes - 1) // 2, self._starts + self.sizes // 2
        found: Floats = (ordered[low] + ordered[high]) / 2
        return found

    def spread(self, of_groups: NDArray[Any]) -> NDArray[Any]:
        """What each group has, for each row."""
        found = np.empty(len(self._of), of_groups.dtype)
        found[self.order] = of_groups[self.group]
        return found


def _found(keys: Counts, wanted: Counts) -> tuple[Truths, Counts]:
    """Which of the ``wanted`` are among the sorted ``keys``, and where."""
    if not len(keys):
        return np.zeros(len(wanted), bool), np.zeros(len(wanted), np.int64)
    place = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return keys[place] == wanted, place


@dataclass(frozen=True, slots=True, kw_only=True)
class _Seen:
    """The observations of arms that are compared, as numbers. ``series`` numbers run, quantity, state and arm in one;
    ``partner`` is the arm that a twin repeats, ``baselines`` the arm that each run's others are compared with.
    """

    series: Counts
    value: Floats
    resolution: Floats
    block: Counts
    session: Counts
    blocks: int
    units: int
    quantities: pd.Index
    states: pd.Index
    arms: list[str]
    partner: Counts
    baselines: Counts
    in_sessions: Truths
    booting: Truths

    @classmethod
    def of(cls, frame: pd.DataFrame, sources: Sequence[Source]) -> _Seen:
        quantities, states, arms = (frame[name].astype("category").cat for name in ("quantity", "state", "arm"))
        labels = [str(each) for each in arms.categories]
        every = sorted({*labels, *(each.removesuffix(TWIN) for each in labels), *(s.baseline for s in sources)})
        number = {label: place for place, label in enumerate(every)}
        allowed = np.zeros((len(sources), len(labels)), bool)
        for place, source in enumerate(sources):
            for nth, label in enumerate(labels):
                own = label.removesuffix(TWIN)
                allowed[place, nth] = own in source.accelerators and (own == label or source.twin_alike)
        compared = np.array([not str(name).startswith(SET_BY_LAB) for name in quantities.categories], bool)
        run, code = frame["run"].to_numpy(dtype=np.int64), arms.codes.to_numpy(dtype=np.int64)
        kept = allowed[run, code] & compared[quantities.codes.to_numpy()]
        quantity, state = (each.codes.to_numpy(dtype=np.int64)[kept] for each in (quantities, states))
        arm = np.array([number[each] for each in labels], np.int64)[code[kept]]
        block, session = (frame[name].to_numpy(dtype=np.int64)[kept] for name in ("block", "session"))
        block, run = block - block.min(initial=0), run[kept]
        many = int(session.max(initial=0)) + 1
        series = ((run * len(quantities.categories) + quantity) * len(states.categories) + state) * len(every) + arm
        return cls(
            series=series,
            value=frame["value"].to_numpy(dtype=np.float64)[kept],
            resolution=frame["resolution"].to_numpy(dtype=np.float64)[kept],
            block=block, session=session, blocks=int(block.max(initial=0)) + 1,
            units=max(int(block.max(initial=0)) + 1, many),
            quantities=quantities.categories, states=states.categories, arms=every,
            partner=np.array([number[label.removesuffix(TWIN)] for label in every], np.int64),
            baselines=np.array([number[source.baseline] for source in sources], np.int64),
            in_sessions=np.bincount(_Groups(run * many + session).keys // many, minlength=len(sources)) >= FEWEST,
            booting=np.array([str(name).startswith("boot.") for name in quantities.categories], bool),
        )  # fmt: skip

    def run_of(self, series: Counts) -> Counts:
        found: Counts = series // (len(self.arms) * len(self.states) * len(self.quantities))
        return found

    def quantity_of(self, series: Counts) -> Counts:
        found: Counts = series // (len(self.arms) * len(self.states)) % len(self.quantities)
        return found

    def without_twin(self, series: Counts) -> Counts:
        """The series of the arm that a twin repeats; of others their own."""
        arm = series % len(self.arms)
        found: Counts = series - arm + self.partner[arm]
        return found

    def baseline_of(self, series: Counts) -> Counts:
        """The baseline's series in the same run, quantity and state."""
        found: Counts = series - series % len(self.arms) + self.baselines[self.run_of(series)]
        return found

    def named(self, series: Counts) -> pd.DataFrame:
        """Run, quantity, state and arm of each series."""
        state = series // len(self.arms) % len(self.states)
        kinds = (
            (self.quantity_of(series), self.quantities),
            (state, self.states),
            (series % len(self.arms), self.arms),
        )
        columns = [pd.Categorical.from_codes(codes, pd.Index(names)) for codes, names in kinds]
        return pd.DataFrame(dict(zip(SERIES, [self.run_of(series), *columns], strict=True)))

    def at(self, groups: _Groups, values: Floats, series: Counts) -> Floats:
        """What ``groups`` of series have, for these series; NaN for one without a good observation."""
        there, place = _found(groups.keys, series)
        return np.where(there, values[place], np.nan)

    def middle(self, groups: _Groups, values: Floats, series: Counts) -> Floats:
        """The geometric mean of a series' own observations; NaN where one is not positive."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.exp(self.at(groups, groups.means(np.log(values)), series))

    def has_failed(self, bad: Truths, series: Counts) -> Truths:
        """Whether an observation of these failed, or a boot of the same arm in the same run."""
        lost = self.without_twin(self.series[bad])
        booted = lost[self.booting[self.quantity_of(lost)]]

        def dead(keys: Counts) -> Counts:
            found: Counts = self.run_of(keys) * len(self.arms) + keys % len(self.arms)
            return found

        return np.isin(series, lost) | np.isin(dead(series), dead(booted))
