"""Two runs of the same thing, before and after: what changed, and how sure that is.

The runs share no blocks, so nothing is paired: the ratio of medians with an interval from resampling each run's
blocks apart, Welch's t on the logarithms with few blocks, and Holm's correction over all that is compared.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats as distributions

from lab.analysis import inference
from lab.analysis import statistics as st
from lab.analysis.compare import ALPHA
from lab.analysis.data import TWIN, Loaded
from lab.analysis.quantities import is_key
from lab.errors import ResultsError

COLUMNS = (
    "quantity", "state", "arm", "unit", "n_before", "n_after", "before", "after", "ratio", "low", "high", "p",
    "adjusted", "changed",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """``table`` has a row per quantity, state and arm that both runs observed; ``unlike`` says what else differed."""

    before: Loaded
    after: Loaded
    table: pd.DataFrame
    unlike: tuple[str, ...]


def difference(before: Loaded, after: Loaded, *, across_hosts: bool = False) -> Difference:
    """Compare two runs of one scenario.

    Raises ResultsError when they are of different scenarios or share nothing, and, unless ``across_hosts``, when
    they were measured on different hosts: then every number would say more about the hosts.
    """
    if before.run.scenario != after.run.scenario:
        raise ResultsError(
            f"{before.run.name} measured {before.run.scenario}, {after.run.name} measured {after.run.scenario}",
            hint="compare two runs of one scenario",
        )
    hosts = before.run.host.get("identity"), after.run.host.get("identity")
    if hosts[0] != hosts[1] and not across_hosts:
        raise ResultsError(
            f"{before.run.name} and {after.run.name} were measured on different hosts",
            hint="lab diff --across-hosts compares them all the same, and says so",
        )
    rows = _rows(before, after)
    if not rows:
        raise ResultsError(
            f"{before.run.name} and {after.run.name} have no backend and quantity in common", hint="lab results ls"
        )
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    judged = table["p"].where(table["quantity"].map(is_key).astype(bool))
    table["adjusted"] = inference.holm(judged.to_numpy(dtype=np.float64))
    clear = (table["low"] > 1) | (table["high"] < 1)
    table["changed"] = clear & (table["adjusted"] <= ALPHA)
    return Difference(before=before, after=after, table=table, unlike=tuple(_unlike(before, after)))


def _rows(before: Loaded, after: Loaded) -> list[dict[str, Any]]:
    keys = ["quantity", "state", "arm"]
    others = dict(list(after.measured.groupby(keys, sort=False, observed=True)))
    rows = []
    for key, group in before.measured.groupby(keys, sort=False, observed=True):
        other = others.get(key)
        if str(key[2]).endswith(TWIN) or other is None:
            continue
        first, second = _by_block(group), _by_block(other)
        if not len(first) or not len(second):
            continue
        ratio, low, high, p = compare(first, second, seed=before.run.seed)
        rows.append(
            dict(zip(keys, map(str, key), strict=True))
            | {"unit": str(group["unit"].iloc[0]), "n_before": len(first), "n_after": len(second)}
            | {"before": float(np.median(first)), "after": float(np.median(second))}
            | {"ratio": ratio, "low": low, "high": high, "p": p}
        )
    return rows


def _by_block(group: pd.DataFrame) -> st.Floats:
    """One value per block: the median of its successful observations."""
    good = group[group["value"].notna()]
    result: st.Floats = good.groupby("block")["value"].median().to_numpy(dtype=np.float64)
    return result


def compare(before: st.Floats, after: st.Floats, *, seed: int = 0) -> tuple[float, float, float, float]:
    """The ratio after ÷ before, its interval, and the p-value of no change, for independent values.

    NaN where not all values are positive; no interval with fewer than three values on either side.
    """
    if min(before.min(), after.min()) <= 0:
        return math.nan, math.nan, math.nan, math.nan
    fewest = min(len(before), len(after))
    if fewest < inference.FEWEST:
        return float(np.median(after) / np.median(before)), math.nan, math.nan, math.nan
    logs = np.log(before), np.log(after)
    if fewest < inference.MANY_BLOCKS:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # of values that hardly vary, handled below
            found = distributions.ttest_ind(logs[1], logs[0], equal_var=False)
        if math.isnan(found.pvalue):  # neither varies
            ratio = float(after[0] / before[0])
            return ratio, ratio, ratio, 1.0 if ratio == 1 else 0.0
        interval = found.confidence_interval(st.LEVEL)
        return (
            float(np.exp(logs[1].mean() - logs[0].mean())),
            float(np.exp(interval.low)),
            float(np.exp(interval.high)),
            float(found.pvalue),
        )
    resampled = [
        st.resampled_medians(values[:, None], st.resamples(len(values), seed, side))
        for side, values in (("before", before), ("after", after))
    ]
    low, high = st.interval(resampled[1] / resampled[0])
    p = float(distributions.mannwhitneyu(after, before).pvalue)
    return float(np.median(after) / np.median(before)), low, high, p


def _unlike(before: Loaded, after: Loaded) -> list[str]:
    """What differs between the runs besides time, a sentence each."""
    first, second = before.run, after.run
    said = []
    if first.host.get("identity") != second.host.get("identity"):
        said.append("The hosts differ: every number below may be the hosts' difference.")
    if first.image.get("digest") != second.image.get("digest") or set(first.images) != set(second.images):
        said.append("The images differ: the application itself may have changed.")
    if dict(first.limits) != dict(second.limits):
        said.append(f"The limits differ: {_plain(first.limits)} before, {_plain(second.limits)} after.")
    if dict(first.host_levels) != dict(second.host_levels):
        said.append(f"The host was set to {_plain(first.host_levels)} before, {_plain(second.host_levels)} after.")
    said += [
        f"{name}: {first.versions[name]} before, {second.versions[name]} after."
        for name in sorted(set(first.versions) & set(second.versions))
        if first.versions[name] != second.versions[name]
    ]
    kernels = first.host.get("kernel_release"), second.host.get("kernel_release")
    if kernels[0] != kernels[1]:
        said.append(f"The host's kernel: {kernels[0]} before, {kernels[1]} after.")
    accelerators = {arm.label: arm.accelerator for arm in first.arms}
    said += [
        f"{arm.label} ran under {accelerators[arm.label].value} before, under {arm.accelerator.value} after."
        for arm in second.arms
        if accelerators.get(arm.label, arm.accelerator) is not arm.accelerator
    ]
    levels = {arm.label: _plain(arm.factors) for arm in first.arms}
    said += [
        f"{arm.label}, its factors: {levels[arm.label]} before, {_plain(arm.factors)} after."
        for arm in second.arms
        if levels.get(arm.label, _plain(arm.factors)) != _plain(arm.factors) and not arm.label.endswith(TWIN)
    ]
    return said


def _plain(named: Any) -> str:
    return ", ".join(f"{name} {value}" for name, value in named.items() if value is not None) or "none"
