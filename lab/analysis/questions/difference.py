"""Two runs of the same thing, before and after: what changed, and how sure that is.

The runs share no blocks, so nothing is paired: Welch's t on the logarithms takes the place of the paired one, and the
ratio is that of the geometric means. All else is as within a run: `lab.analysis.inference.estimate`,
`lab.analysis.inference.judge`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lab.analysis.compare import Series, bars
from lab.analysis.data import TWIN, sessions_of
from lab.analysis.inference import statistics as st
from lab.analysis.inference.estimate import FEWEST, by_session, estimates_apart
from lab.analysis.inference.judge import EXPLORATORY, HEADLINE, judge
from lab.analysis.loaded import Loaded
from lab.analysis.quantities import is_headline
from lab.analysis.readiness import until
from lab.errors import ResultsError
from lab.results.record import Run, processors

COLUMNS = (
    "quantity", "state", "arm", "unit", "n_before", "n_after", "before", "after", "ratio", "low", "high", "family",
    "p", "adjusted", "verdict", "claim", "why", "shows", "needs", "units", "per",
)  # fmt: skip


ONE_SESSION = (
    f"With fewer than {FEWEST} sessions on either side, a change may be what one session got by chance (where things "
    f"lie in memory, the hour), which is in no interval: lab compare --sessions {FEWEST} tells them apart."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """``table`` has a row per quantity, state and arm that both runs observed; ``unlike`` says what else differed.

    ``caution`` says what no interval of it holds; "" where both runs are of sessions enough to tell how these vary.
    """

    before: Loaded
    after: Loaded
    table: pd.DataFrame
    unlike: tuple[str, ...]
    caution: str


def difference(before: Loaded, after: Loaded, *, across_hosts: bool = False) -> Difference:
    """Compare two runs of one scenario.

    Raises ResultsError when they are of different scenarios, waited for different things or share nothing, and,
    unless ``across_hosts``, when they were measured on different hosts: then every number would say more about those.
    """
    if before.run.scenario != after.run.scenario:
        raise ResultsError(
            f"{before.run.name} measured {before.run.scenario}, {after.run.name} measured {after.run.scenario}",
            hint="compare two runs of one scenario",
        )
    waited = until(before.run), until(after.run)
    if waited[0] != waited[1]:
        raise ResultsError(
            f"{before.run.name} waited for “{waited[0]}”, {after.run.name} for “{waited[1]}”: their times are of "
            "different things",
            hint="measure one of them anew, with the --ready of the other",
        )
    if (differ := _hosts_differ(before.run, after.run)) and not across_hosts:
        raise ResultsError(
            f"{before.run.name} and {after.run.name} were measured on different hosts{differ}",
            hint="lab diff --across-hosts compares them all the same, and says so",
        )
    table = _compared(before, after)
    if table.empty:
        raise ResultsError(
            f"{before.run.name} and {after.run.name} have no backend and quantity in common", hint="lab results ls"
        )
    single = any(each.measured["session"].nunique() < FEWEST for each in (before, after))
    caution = ONE_SESSION if single else ""
    return Difference(before=before, after=after, table=table, unlike=tuple(_unlike(before, after)), caution=caution)


def _hosts_differ(before: Run, after: Run) -> str:
    """What says that they are not one host, to be put behind that statement; "" where they may be one.

    One installation on other processors is another host: every number below would be theirs.
    """
    known = [processors(run.host) for run in (before, after)]
    if all(known) and known[0] != known[1]:
        return f": {known[0]} before, {known[1]} after"
    one, other = (run.host.get("identity") for run in (before, after))
    return ": another installation" if one != other else ""


def _compared(before: Loaded, after: Loaded) -> pd.DataFrame:
    if any(each.measured["value"].isna().all() for each in (before, after)):
        return pd.DataFrame()
    sides = [_side(before), _side(after)]
    rows: list[dict[str, Any]] = []
    pairs: list[tuple[st.Floats, st.Floats]] = []
    families = []
    for quantity, state, arms in sides[0].series:
        for arm in arms:
            key = quantity, state, arm
            if arm.endswith(TWIN) or key not in sides[1].series.values:
                continue
            logs = [_independent(side, key) for side in sides]
            values = [side.series.values[key] for side in sides]
            pairs.append((logs[1], logs[0]))
            families.append(f"{HEADLINE}:{arm}" if is_headline(quantity, state) else EXPLORATORY)
            rows.append(
                {"quantity": quantity, "state": state, "arm": arm, "unit": sides[0].series.units[quantity]}
                | {"n_before": len(values[0]), "n_after": len(values[1])}
                | {"before": float(np.median(values[0])), "after": float(np.median(values[1]))}
            )
    if not rows:
        return pd.DataFrame()
    table = pd.DataFrame(rows).join(estimates_apart(pairs))
    first, second = (side.series for side in sides)
    compared = [((second, str(row["arm"])), (first, str(row["arm"]))) for row in rows]
    table = table.join(bars(table.to_dict("records"), compared))
    return judge(table, pd.Series(families))[list(COLUMNS)]


class _Side(NamedTuple):
    """What each quantity of each arm is worked out from: the sessions of the blocks, and whether the twin counts."""

    series: Series
    sessions: NDArray[np.int64] | None
    pooled: bool


def _side(loaded: Loaded) -> _Side:
    measured = loaded.measured
    series = Series(measured, loaded.wanted)
    return _Side(series, sessions_of(measured, series.blocks), loaded.twin_alike)


def _independent(side: _Side, key: tuple[str, str, str]) -> st.Floats:
    """A logarithm per block, or per session where there are several."""
    logs = side.series.logs(*key, pooled=side.pooled)
    values: st.Floats = by_session(logs[None], side.sessions)[0]
    known: st.Floats = values[np.isfinite(values)]
    return known


def _unlike(before: Loaded, after: Loaded) -> list[str]:
    """What differs between the runs besides time, a sentence each."""
    first, second = before.run, after.run
    said = []
    if differ := _hosts_differ(first, second):
        said.append(f"The hosts differ{differ}. Every number below may be the hosts' difference.")
    users = ["an ordinary user" if run.host.get("rootless") else "root" for run in (first, second)]
    if users[0] != users[1]:
        said.append(f"Measured by {users[0]} before, by {users[1]} after.")
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
