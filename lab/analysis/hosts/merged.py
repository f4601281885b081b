"""Many hosts as one result: an estimate per host, all of a kind together, and which of them disagrees.

Seconds of different hosts are never put together: only ratios, each made within a host's own runs. Bare, nested and
emulated hosts have an estimate each, and so have KVM and TCG behind one backend's name.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats as distributions

from lab.analysis.hosts import across
from lab.analysis.hosts.across import SUREST, apart, combined
from lab.analysis.hosts.sources import NOT_SAID, Group, HostKind, LeftOut, Source, chosen, found_below, traits_of
from lab.analysis.hosts.within import ratios_of
from lab.analysis.inference.estimate import FEWEST
from lab.analysis.inference.judge import ALPHA, EXPLORATORY, HEADLINE, adjusted, judge
from lab.analysis.inference.statistics import LEVEL
from lab.analysis.many import as_text
from lab.analysis.quantities import is_directed, is_headline, is_key, more_is_better, some
from lab.errors import LabError, ResultsError

COMPARISON = ["scenario", "kind", "quantity", "state", "arm", "accelerator"]
"""What tells one estimate over hosts from another."""

NORM, RARE = 0.5, 0.25
"""Special about a host is what fewer than a quarter of the others have, where half of them agree on another thing."""

ESTIMATES = (
    *COMPARISON, "baseline", "host", "runs", "units", "ratio", "low", "high", "log", "variance", "freedom",
    "residual", "p", "adjusted", "disagrees",
)  # fmt: skip
POOLED = (
    *COMPARISON, "baseline", "hosts", "runs", "ratio", "low", "high", "next_low", "next_high", "tau2", "i2",
    "p_alike", "differing", "family", "p", "adjusted", "verdict", "claim", "why", "shows", "needs", "units",
    "scatter", "per",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """One host as its runs of one scenario describe it: ``traits`` by name. ``name`` is what it is called here."""

    identity: str
    name: str
    kind: HostKind
    runs: int
    traits: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Merged:
    """Runs of many hosts. ``estimates`` has a row per comparison and host, ``pooled`` one per comparison: see
    `ESTIMATES` and `POOLED`. Ratios are of each arm to ``baseline``; ``tau2`` and ``variance`` are of logarithms.
    ``differing``: that the hosts differ among themselves is proven.
    """

    groups: tuple[Group, ...]
    left_out: tuple[LeftOut, ...]
    hosts: Mapping[str, tuple[Host, ...]]  # by scenario
    estimates: pd.DataFrame
    pooled: pd.DataFrame

    @cached_property
    def strata(self) -> tuple[tuple[Group, HostKind], ...]:
        """Every scenario with every kind of host that has an estimate in it."""
        there = set(zip(self.pooled["scenario"], self.pooled["kind"], strict=True))
        return tuple((group, kind) for group in self.groups for kind in HostKind if (group.scenario, kind) in there)

    def host(self, scenario: str, identity: str, kind: str) -> Host:
        """What is known of a host in a scenario's runs."""
        return next(each for each in self.hosts[scenario] if (each.identity, each.kind) == (identity, HostKind(kind)))

    def special(self, scenario: str, host: Host) -> tuple[str, ...]:
        """What sets a host apart from the others of its kind, a phrase each: it goes along with what was measured
        there, and needn't be the cause.
        """
        others = [each for each in self.hosts[scenario] if each.kind is host.kind and each is not host]
        return tuple(_special(host, others)) if len(others) >= across.FEWEST_OTHERS else ()


def merged(
    folders: Iterable[Path],
    *,
    names: Mapping[str, str] | None = None,
    skipped: Callable[[LabError], None] | None = None,
) -> Merged:
    """All complete comparisons below ``folders``, host by host and together.

    ``names`` says what hosts are called, by identity; others are called by that. Raises ResultsError when no run
    counts, and for a folder that can't be read, unless ``skipped`` is there to hear of a run's.
    """
    paths = found_below(folders)
    groups, left_out = chosen(paths)
    if not groups:
        why = f"; {left_out[0].path}: {left_out[0].why}" if left_out else ""
        raise ResultsError(
            f"no run there can be looked at together with others ({len(paths)} found{why})",
            hint="lab compare web-app",
        )
    known = {group.scenario: tuple(_hosts(group.sources, names or {})) for group in groups}
    parts = [_by_host(group, ratios_of(group.sources, skipped)) for group in groups]
    estimates = pd.concat([part for part in parts if len(part)] or parts[:1], ignore_index=True)
    if estimates.empty:
        counted = some([as_text(source.path) for group in groups for source in group.sources])
        raise ResultsError(
            f"{counted}: no backend beside the baseline has three blocks there",
            hint="lab compare web-app --on process,container --blocks 10",
        )
    estimates = _disagreeing(estimates)
    wanted = {quantity for group in groups for source in group.sources for quantity in source.wanted}
    return Merged(
        groups=tuple(groups), left_out=tuple(left_out), hosts=known,
        estimates=estimates[list(ESTIMATES)], pooled=_together(estimates, wanted),
    )  # fmt: skip


def _hosts(sources: Sequence[Source], names: Mapping[str, str]) -> Iterator[Host]:
    found: dict[tuple[str, HostKind], list[Source]] = {}
    for source in sources:
        found.setdefault((source.host, source.kind), []).append(source)
    for (identity, kind), own in sorted(found.items()):
        yield Host(
            identity=identity, name=names.get(identity, identity), kind=kind, runs=len(own), traits=traits_of(own)
        )


def _by_host(group: Group, table: pd.DataFrame) -> pd.DataFrame:
    """One estimate per host: the mean of its runs' logarithms. Its variance is that of the runs around it, and never
    less than what their own blocks give; of a host with one run the latter alone. Its degrees of freedom are those of
    Satterthwaite (1946): the blocks', or as few as the runs' where it is these that scatter.
    """
    sources = group.sources
    run = table["run"].to_numpy(dtype=np.int64)
    arms = [str(each) for each in table["arm"].astype("category").cat.categories]
    codes = table["arm"].astype("category").cat.codes.to_numpy()
    kinds = np.array([[source.accelerators.get(arm, "") for arm in arms] for source in sources], dtype=object)
    table = table.assign(
        host=np.array([source.host for source in sources], dtype=object)[run],
        kind=np.array([source.kind.value for source in sources], dtype=object)[run],
        baseline=np.array([source.baseline for source in sources], dtype=object)[run],
        accelerator=kinds[run, codes] if len(table) else "",
        inner=table["scatter"] ** 2 / table["units"],
        freedom=table["units"] - 1,
    )
    table = table[table["log"].notna()]
    keys = ["kind", "quantity", "state", "arm", "accelerator", "host"]
    grouped = table.groupby(keys, sort=False, observed=True)
    found = grouped.agg(
        baseline=("baseline", "first"), runs=("log", "size"), units=("units", "sum"), log=("log", "mean"),
        between=("log", "var"), inner=("inner", "mean"), freedom=("freedom", "sum"), failed=("failed", "max"),
        against_failed=("against_failed", "max"), unresolved=("unresolved", "mean"),
    ).reset_index()  # fmt: skip
    found["between"], found["inner"] = found["between"] / found["runs"], found["inner"] / found["runs"]
    found["variance"] = np.fmax(found["between"], found["inner"])
    more = np.fmax(found["variance"] - found["inner"].fillna(0.0), 0.0)
    shares = (found["inner"] ** 2 / found["freedom"]).fillna(0.0) + (more**2 / (found["runs"] - 1)).fillna(0.0)
    exact = shares == 0
    found["freedom"] = np.where(exact, found["freedom"], found["variance"] ** 2 / shares.mask(exact))
    found = found[found["variance"].notna()].assign(scenario=group.scenario)
    reach = np.sqrt(np.fmax(found["variance"], SUREST**2)) * distributions.t.ppf((1 + LEVEL) / 2, found["freedom"])
    return found.assign(
        ratio=np.exp(found["log"]), low=np.exp(found["log"] - reach), high=np.exp(found["log"] + reach),
        **{name: found[name].astype(str) for name in ("quantity", "state", "arm")},
    )  # fmt: skip


def _disagreeing(estimates: pd.DataFrame) -> pd.DataFrame:
    """With the columns residual, p, adjusted and disagrees, for the quantities that are judged.

    Corrected are all hosts and headline quantities of a kind together, by Holm; all others by the false discovery
    rate.
    """
    residual, p_values = np.full((2, len(estimates)), math.nan)
    for key, rows in _comparisons(estimates):
        if is_key(key["quantity"]) or is_headline(key["quantity"], key["state"]):
            columns = estimates[["log", "variance", "freedom"]].to_numpy(dtype=np.float64)[rows]
            residual[rows], p_values[rows] = apart(*columns.T)
    corrected = np.full(len(estimates), math.nan)
    headline = _are_headline(estimates)
    for rows in estimates.groupby(["scenario", "kind"], sort=False).indices.values():
        for is_first in (True, False):
            these = rows[headline[rows] == is_first]
            corrected[these] = adjusted(p_values[these], is_first)
    return estimates.assign(residual=residual, p=p_values, adjusted=corrected, disagrees=corrected <= ALPHA)


def _are_headline(table: pd.DataFrame) -> Any:
    pairs = zip(table["quantity"], table["state"], strict=True)
    return np.array([is_headline(quantity, state) for quantity, state in pairs], bool)


def _comparisons(estimates: pd.DataFrame) -> Iterator[tuple[dict[str, str], Any]]:
    for key, rows in estimates.groupby(COMPARISON, sort=False).indices.items():
        assert isinstance(key, tuple)
        yield dict(zip(COMPARISON, map(str, key), strict=True)), rows


def _together(estimates: pd.DataFrame, wanted: set[str]) -> pd.DataFrame:
    """A row per comparison, judged as those within a run are: see `lab.analysis.inference.judge`."""
    rows, families = [], []
    for key, places in _comparisons(estimates):
        these = estimates.iloc[places]
        found = combined(*(these[name].to_numpy(dtype=np.float64) for name in ("log", "variance", "freedom")))
        row = {
            **key, "baseline": these["baseline"].iloc[0], "hosts": found.count, "runs": int(these["runs"].sum()),
            "tau2": found.tau2, "i2": found.i2, "p_alike": found.p_alike, "p": found.p, "same": found.same,
            "units": float(found.count), "scatter": found.scatter if found.count >= FEWEST else math.nan,
        }  # fmt: skip
        ends = ("low", "high", "next_low", "next_high")
        row |= {"ratio": math.exp(found.mean), **{name: _exp(getattr(found, name)) for name in ends}}
        rows.append(row | {"bar": _bar(key["quantity"], found.mean, these, wanted), "bar_same": _bar_same(these)})
        of = ":".join(key[name] for name in ("scenario", "kind", "arm", "accelerator"))
        is_first = is_headline(key["quantity"], key["state"])
        families.append(f"{HEADLINE}:{of}" if is_first else f"{EXPLORATORY}:{key['scenario']}:{key['kind']}")
    table, alike = judge(pd.DataFrame(rows), pd.Series(families), per="hosts"), np.full(len(rows), math.nan)
    for name in np.unique(families):
        these = np.flatnonzero(np.array(families) == name)
        alike[these] = adjusted(table["p_alike"].to_numpy(dtype=np.float64)[these], name.startswith(HEADLINE))
    return table.assign(differing=alike <= ALPHA)[list(POOLED)]


def _exp(value: float) -> float:
    """Of the interval of very few hosts, too, whose end no number holds."""
    with np.errstate(over="ignore"):
        return float(np.exp(value))


def _bar(quantity: str, mean: float, these: pd.DataFrame, wanted: set[str]) -> str:
    """What stands against any claim, as within a run: see `lab.analysis.compare.bar`."""
    if 2 * int((these["unresolved"] > NORM).sum()) > len(these):
        return "the difference is smaller than polling resolves on most hosts"
    if not is_directed(quantity, wanted):
        return ""
    better = mean > 0 if more_is_better(quantity, wanted) else mean < 0
    failed, against = int(these["failed"].sum()), int(these["against_failed"].sum())
    if failed and better:
        return f"it failed at times on {failed} of {len(these)} hosts: better only where it did not"
    if against and not better:
        whose = these["baseline"].iloc[0]
        return f"{whose} failed at times on {against} of {len(these)} hosts: worse only than where it did not"
    return ""


def _bar_same(these: pd.DataFrame) -> str:
    """What stands against "the same"."""
    failed = int((these["failed"].astype(bool) | these["against_failed"].astype(bool)).sum())
    return f"some failed on {failed} of {len(these)} hosts: the same only where they did not" if failed else ""


def _special(host: Host, others: Sequence[Host]) -> Iterator[str]:
    for name in dict.fromkeys([*host.traits, *(name for other in others for name in other.traits)]):
        own = host.traits.get(name, NOT_SAID)
        theirs = [other.traits.get(name, NOT_SAID) for other in others]
        usual = max(sorted(set(theirs)), key=theirs.count)
        if theirs.count(own) < RARE * len(others) and theirs.count(usual) >= NORM * len(others):
            yield f"{name} {own} ({theirs.count(usual)} of {len(others)} others: {usual})"
