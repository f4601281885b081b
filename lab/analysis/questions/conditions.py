"""``--fail-if``: a condition on a run, for continuous integration.

    boot.ratio(container, process) > 2          a ratio of two arms
    memory.pss.median(microvm) > 300M           a median, in the quantity's unit or with one of its prefixes
    load.requests_per_second.ratio(container, runc) < 0.9
    boot.ratio(vm[memory=512M], vm) > 1.1       with factors: an arm by its levels, those left out being the first
    boot.effect(vm, memory=512M) > 1.1          the main effect of a level, over all levels of the other factors

The quantity's name may be shortened to its metric (boot, teardown, memory, load) or to any name it has a median of.
A condition holds only when the *whole* interval of 95 % fulfils it: a noisy run fails nobody's build. Where only the
estimate does, the verdict says so. Of several conditions each has a part of the 5 % in which one may hold by chance
(Bonferroni). An arm that failed at times holds none by being better: a boot that failed is longer than any other, and
of all else the verdict says that it is of those that lived.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from enum import StrEnum
from typing import Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lab.analysis.compare import Series, ratios
from lab.analysis.data import TWIN, sessions_of
from lab.analysis.factors.effects import EVERY
from lab.analysis.inference.estimate import at_level, censored_interval, censored_median, median_interval
from lab.analysis.inference.judge import ALPHA
from lab.analysis.loaded import Loaded
from lab.analysis.noise import HOST
from lab.analysis.quantities import QUANTITIES, format_interval, format_ratio, format_value, more_is_better
from lab.analysis.summary import CENSORED
from lab.errors import UsageError
from lab.host.units import parse_bytes

SHORT: Mapping[str, str] = {
    "boot": "boot.total",
    "teardown": "teardown.total",
    "memory": "memory.pss",
    "cpu": "cpu.per_1000_requests",
    "load": "load.requests_per_second",
    "work": "work.seconds",
}
COMPARISONS: Mapping[str, Callable[[float, float], bool]] = {
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
}
SECONDS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "min": 60.0}

_FORM = re.compile(
    r"""\s* (?P<quantity>[a-z][\w.-]*?) \. (?P<function>ratio|median|effect) \s*
    \( \s* (?P<first>[\w#.:-]+(?:\[[^]]*\])?) \s*
    (?:, \s* (?P<second>[\w#.:-]+(?:\[[^]]*\]|=[\w.+:/@%-]+)?) \s*)? \) \s*
    (?P<comparison>[<>]=?) \s*
    (?P<number>[0-9]+(?:\.[0-9]+)?(?:e[+-]?[0-9]+)?) \s* (?P<unit>[a-zA-Zµ]*) \s*""",
    re.VERBOSE,
)
WANTED = {"ratio": "two backends", "median": "one backend", "effect": "a backend and a level, like memory=512M"}
EXAMPLE = "for example: boot.ratio(container, process) > 2, or memory.pss.median(vm) > 300M"


class Outcome(StrEnum):
    """What became of a condition."""

    HOLDS = "holds"
    PERHAPS = "holds for the estimate, but not for all of its interval"
    NOT = "does not hold"


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """A parsed condition; ``second`` is "" for a median, and a level like ``memory=512M`` for an effect."""

    text: str
    quantity: str
    function: str
    first: str
    second: str
    comparison: str
    number: float
    unit: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """A condition, what was found, and whether it holds."""

    condition: Condition
    outcome: Outcome
    found: str

    def __str__(self) -> str:
        return f"{self.condition.text}: {self.outcome} ({self.found})"


def parse(text: str) -> Condition:
    """Raises UsageError for what is no condition."""
    match = _FORM.fullmatch(text)
    if match is None:
        raise UsageError(f"--fail-if {text!r} can't be read", hint=EXAMPLE)
    parts = match.groupdict(default="")
    function, level = parts["function"], "=" in parts["second"].partition("[")[0]
    if (function == "median") == bool(parts["second"]) or (function == "effect") != level:
        raise UsageError(f"--fail-if {text!r}: {function} wants {WANTED[function]}", hint=EXAMPLE)
    if function != "median" and parts["unit"]:
        raise UsageError(f"--fail-if {text!r}: a ratio has no unit", hint=EXAMPLE)
    quantity = SHORT.get(parts["quantity"], parts["quantity"])
    return Condition(
        text=" ".join(text.split()),
        quantity=quantity,
        function=function,
        first=parts["first"],
        second=parts["second"],
        comparison=parts["comparison"],
        number=float(parts["number"]),
        unit=parts["unit"],
    )


def judge(condition: Condition, loaded: Loaded, *, conditions: int = 1) -> Verdict:
    """What became of one of so many ``conditions``.

    Raises UsageError when the run lacks the quantity or a backend, or the unit does not fit.
    """
    frame = loaded.measured
    frame = frame[frame["quantity"] == condition.quantity]
    if frame.empty:
        known = sorted(set(loaded.measured["quantity"]))
        raise UsageError(
            f"--fail-if: {loaded.run.name} has no {condition.quantity}", hint=f"it has: {', '.join(known)}"
        )
    state = str(frame["state"].iloc[0])  # idle before after-load
    level = 1 - ALPHA / conditions
    if condition.function == "effect":
        return _effect(condition, state, loaded, level)
    arms = [_label(name, loaded.all_arms, loaded.run.name) for name in (condition.first, condition.second) if name]
    frame = frame[(frame["state"] == state) & frame["arm"].isin({*arms, *(arm + TWIN for arm in arms)})]
    if missing := [arm for arm in arms if frame.loc[frame["arm"] == arm, "value"].isna().all()]:
        raise UsageError(f"--fail-if: nothing of {missing[0]} succeeded", hint=f"lab report {loaded.path}")
    if condition.function == "median":
        return _median(condition, frame[frame["arm"] == arms[0]], loaded, level)
    table = ratios(
        loaded.frame[loaded.frame["arm"].isin(set(frame["arm"]))], arms[1], twin_alike=loaded.twin_alike,
        wanted=loaded.wanted,
    )  # fmt: skip
    rows = table[(table["quantity"] == condition.quantity) & (table["state"] == state) & (table["arm"] == arms[0])]
    if arms[0] == arms[1] or rows.empty:
        raise UsageError(f"--fail-if {condition.text}: an arm has no ratio to itself", hint=EXAMPLE)
    series = Series(loaded.measured, loaded.wanted)
    above, below = (series.missing(condition.quantity, state, arm) for arm in arms)
    return _ratio(condition, rows.iloc[0], level, _survivors(condition, loaded, above=above, below=below))


def _median(condition: Condition, frame: pd.DataFrame, loaded: Loaded, level: float) -> Verdict:
    arm, state = str(frame["arm"].iloc[0]), str(frame["state"].iloc[0])
    unit, good = str(frame["unit"].iloc[0]), frame["value"].notna()
    limit = _in_unit(condition, unit)
    lost = len(set(frame["instance"]) - set(frame.loc[good, "instance"]))
    if lost and condition.quantity == CENSORED:
        return _of_boots(condition, frame.loc[good, "value"].to_numpy(dtype=np.float64), lost, limit, unit, level)
    per_block = frame[good].groupby("block")["value"].median()
    sessions = sessions_of(loaded.measured, per_block.index.to_numpy(dtype=np.int64))
    values = per_block.to_numpy(dtype=np.float64)
    low, high = median_interval(values, level, sessions=sessions)
    estimate = float(np.median(values))
    found = _found(format_value(estimate, unit), format_interval(low, high, unit), low, level)
    verdict = _verdict(condition, estimate, low, high, limit, found)
    failed = Series(loaded.measured, loaded.wanted).missing(condition.quantity, state, arm)
    return _of_survivors(verdict, _survivors(condition, loaded, above=failed, below=False))


def _of_boots(
    condition: Condition, values: NDArray[np.float64], lost: int, limit: float, unit: str, level: float
) -> Verdict:
    """A condition on a median of boots of which so many were ``lost``: each took longer than any that succeeded."""
    estimate = censored_median(values, lost)
    low, high = censored_interval(values, lost, level)
    interval = format_interval(low, high, unit)
    if math.isnan(high) and not math.isnan(low := median_interval(values, level)[0]):
        high, interval = math.inf, f"from {format_value(low, unit)} on"  # those that were lost can only raise it
    told = format_value(estimate, unit)
    if math.isnan(estimate):
        estimate, told = math.inf, f"more than {format_value(float(values.max()), unit)}"
    found = f"{told}, {lost} of {lost + len(values)} failed, {100 * level:.3g} %: {interval}"
    return _verdict(condition, estimate, low, high, limit, found)


def _survivors(condition: Condition, loaded: Loaded, *, above: bool, below: bool) -> str:
    """Why the condition can't hold where some of the arm ``above``, the first, or ``below``, the second, failed:
    those that lived make it better than it is. "" where they don't.
    """
    by_being_better = condition.comparison.startswith("<") != more_is_better(condition.quantity, loaded.wanted)
    if by_being_better and above:
        return f"{condition.first} failed at times: that is of those that lived"
    if not by_being_better and below:
        return f"{condition.second} failed at times: that is of those that lived"
    return ""


def _of_survivors(verdict: Verdict, why: str) -> Verdict:
    if verdict.outcome is Outcome.HOLDS and why:
        return replace(verdict, outcome=Outcome.PERHAPS, found=f"{verdict.found}; {why}")
    return verdict


def _ratio(condition: Condition, row: pd.Series, level: float, survivors: str) -> Verdict:
    """``row`` is one of a table of ratios or effects: the report's own figures."""
    estimate, units = float(row["ratio"]), float(row["units"])
    low, high = at_level(estimate, float(row["low"]), float(row["high"]), units, level)
    found = _found(format_ratio(estimate), f"{format_ratio(low)} – {format_ratio(high)}", low, level)
    return _of_survivors(_verdict(condition, estimate, low, high, condition.number, found), survivors)


class Named(Protocol):
    """An arm, planned or run."""

    @property
    def label(self) -> str: ...
    @property
    def backend(self) -> str: ...
    @property
    def factors(self) -> Mapping[str, str]: ...


def require(condition: Condition, arms: Sequence[Named]) -> None:
    """Refuse a condition on what ``arms``, which are about to be run, will not tell. Raises UsageError."""
    _label(condition.first, arms, "this comparison")
    if condition.function == "ratio":
        _label(condition.second, arms, "this comparison")
    if condition.function == "effect":
        factor, _, level = condition.second.partition("=")
        known = [
            f"{name}={each}"
            for name, each in _levels(arms, condition.first)
            if each != next(arm for arm in arms if arm.label == condition.first).factors[name]
        ]
        if f"{factor}={level}" not in known:
            raise UsageError(
                f"--fail-if: this comparison has no effect of {condition.second} on {condition.first}",
                hint=f"it has those of {', '.join(known)}" if known else "--factor varies something",
            )


def require_quantity(condition: Condition, metrics: Sequence[str], figures: Sequence[str] | None) -> None:
    """Refuse a quantity that ``metrics`` will not give; ``figures`` are the scenario's own, None without work of its
    own. Raises UsageError.
    """
    name = condition.quantity
    metric = {"teardown": "boot", "snapshot": "boot"}.get(name.partition(".")[0], name.partition(".")[0])
    own = [] if figures is None else [f"work.{figure}" for figure in figures]
    known = [each for each in QUANTITIES if not each.startswith((HOST, "work.", "ksm.", "caches."))]
    known += own if figures is None else ["work.seconds", "work.cpu", *own]
    if name not in known:
        alike = get_close_matches(name, [*known, *SHORT], 3, 0.5)
        hint = f"did you mean {' or '.join(alike)}?" if alike else f"quantities: {', '.join(sorted(known))}"
        raise UsageError(f"--fail-if: no quantity is called {name}", hint=hint)
    if metric not in metrics:
        raise UsageError(f"--fail-if: {name} is not measured", hint=f"add {metric} to --metrics")


def _label(arm: str, arms: Sequence[Named], run: str) -> str:
    """The label of the arm that ``BACKEND[FACTOR=LEVEL,…]`` names; factors left out are at their first levels."""
    if arm in [each.label for each in arms]:
        return arm
    name, _, inside = arm.rstrip("]").partition("[")
    reference = next((each for each in arms if each.label == name), None)
    if reference is None:
        known = [each.label for each in arms if each.label == each.backend]
        raise UsageError(f"--fail-if: {run} has no backend {name}", hint=f"it has: {', '.join(known)}")
    levels = dict(pair.strip().partition("=")[::2] for pair in inside.split(",") if pair.strip())
    wanted = {**reference.factors, **levels}
    for each in arms:
        if each.backend == reference.backend and dict(each.factors) == wanted:
            return each.label
    known = [f"{factor}={level}" for factor, level in _levels(arms, reference.backend)]
    hint = f"levels of {name}: {', '.join(known)}" if known else "it was made without --factor"
    raise UsageError(f"--fail-if: {run} has no arm {arm}", hint=hint)


def _levels(arms: Sequence[Named], backend: str) -> list[tuple[str, str]]:
    """Every level of every factor that a backend's arms have."""
    return list(dict.fromkeys(pair for arm in arms if arm.backend == backend for pair in arm.factors.items()))


def _effect(condition: Condition, state: str, loaded: Loaded, level: float) -> Verdict:
    """The main effect of a level, as the report has it."""
    table = loaded.effects()
    factor, _, value = condition.second.partition("=")
    mains = table[(table["other"] == "") & (table["level"] != EVERY)]
    found = mains[(mains["backend"] == condition.first) & (mains["factor"] == factor) & (mains["level"] == value)]
    if found.empty:
        known = dict.fromkeys(f"{row.backend}, {row.factor}={row.level}" for row in mains.itertuples())
        hint = f"it has: {'; '.join(known)}" if known else "it was made without --factor"
        raise UsageError(
            f"--fail-if: {loaded.run.name} has no effect of {condition.second} on {condition.first}", hint=hint
        )
    rows = found[(found["quantity"] == condition.quantity) & (found["state"] == state)]
    if rows.empty:
        judged = ", ".join(dict.fromkeys(found["quantity"]))
        raise UsageError(f"--fail-if: effects on {condition.quantity} are not judged", hint=f"those on: {judged}")
    row = rows.iloc[0]
    above, below = bool(row["censored"]), bool(row["base_censored"])
    return _ratio(condition, row, level, _survivors(condition, loaded, above=above, below=below))


def _in_unit(condition: Condition, unit: str) -> float:
    """The condition's number in the samples' unit."""
    given = condition.unit
    if not given or given == unit:
        return condition.number
    if unit == "seconds" and given in SECONDS:
        return condition.number * SECONDS[given]
    if unit == "bytes":
        return float(parse_bytes(f"{condition.number:.15g}{given}"))
    raise UsageError(f"--fail-if {condition.text}: {condition.quantity} is in {unit}, not {given}", hint=EXAMPLE)


def _found(value: str, interval: str, low: float, level: float) -> str:
    sure = f"{100 * level:.3g} %: {interval}"
    return f"{value}, with too few blocks for an interval" if math.isnan(low) else f"{value}, {sure}"


def _verdict(condition: Condition, estimate: float, low: float, high: float, limit: float, found: str) -> Verdict:
    holds = COMPARISONS[condition.comparison]
    if not holds(estimate, limit):
        outcome = Outcome.NOT
    elif holds(low, limit) and holds(high, limit):
        outcome = Outcome.HOLDS
    else:
        outcome = Outcome.PERHAPS
    return Verdict(condition=condition, outcome=outcome, found=found)
