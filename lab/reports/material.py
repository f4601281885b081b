"""All that a report is made of, computed once: the figures, the tables and the words read from here."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TypeVar

import pandas as pd

from lab.analysis.data import TWIN
from lab.analysis.debt import by_request, owed, went_on
from lab.analysis.factors.cubes import Cube, cubes
from lab.analysis.factors.effects import effects
from lab.analysis.findings import Finding, findings
from lab.analysis.inference.judge import Judgement, judgement
from lab.analysis.loaded import Loaded, load
from lab.analysis.quantities import RATES, format_ratios, format_value, label
from lab.analysis.readiness import called
from lab.analysis.summary import summary
from lab.model import Accelerator
from lab.reports.answers import Probe, matrix
from lab.results.record import Arm
from lab.results.store import PROGRESS, RUN, SAMPLES

T = TypeVar("T")

ENGINES = {
    "memory.pss": "memory.engine",
    "cpu.boot": "cpu.engine.boot",
    "cpu.idle": "cpu.engine.idle",
    "cpu.per_1000_requests": "cpu.engine.per_1000_requests",
}
"""What an engine takes of a quantity beside an instance, by that quantity."""

MISFIT = 0.01
"""A ratio that lies further than that from the quotient of the medians beside it is marked as the paired one."""

FEWEST_FOR_P95 = 20
"""With fewer values than that, nothing lies beyond their 95th percentile."""

FEWEST_FOR_P99 = 300
"""A p99 rests on so many requests."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Value:
    """A median with its interval, in ``unit``, and what became of the attempts."""

    median: float
    low: float
    high: float
    p95: float
    unit: str
    n: int
    failed: int
    timeout: int
    resolution: float

    @property
    def whiskers(self) -> tuple[float, float]:
        """How far the interval reaches below and above the median; nothing is drawn where there is no interval."""
        if math.isnan(self.low) or math.isnan(self.high):
            return 0.0, 0.0
        return max(0.0, self.median - self.low), max(0.0, self.high - self.median)

    @property
    def edge(self) -> float:
        """Where the bar and its whisker end: what is written beside it starts there. A whisker longer than the bar
        itself and half of it again runs out of the panel; its numbers are written anyway.
        """
        return self.median + min(self.whiskers[1], 1.5 * abs(self.median))


@dataclass(frozen=True, slots=True, kw_only=True)
class Ratio:
    """An arm over the baseline, within blocks (the paired figure), with its interval, and what may be said of it.

    ``judged`` is the one judge's answer: see `lab.analysis.inference.judge.Judgement`.
    """

    ratio: float
    low: float
    high: float
    baseline: str
    delta: float
    judged: Judgement

    @property
    def claim(self) -> bool:
        """Whether a difference may be claimed."""
        return self.judged.claim

    @property
    def why(self) -> str:
        """What stands against claiming one; "" when nothing does."""
        return self.judged.why

    @property
    def range(self) -> str:
        """``0.95–1.12 ×``; "none" without an interval."""
        return format_ratios(self.low, self.high) or "none"

    def fits(self, above: Value, below: Value) -> bool:
        """Whether it is the quotient of the two medians, too: medians don't know of blocks."""
        return below.median != 0 and abs(above.median / below.median / self.ratio - 1) < MISFIT


@dataclass(frozen=True, slots=True, kw_only=True)
class Owed:
    """How many times as long an arm's first hundred answers took as its later ones: see `lab.analysis.debt.owed`."""

    ratio: float
    low: float
    high: float
    judged: Judgement


class Material:
    """A loaded run with its summary, ratios and findings, and quick access to single values."""

    def __init__(self, loaded: Loaded) -> None:
        self.loaded = loaded
        self.run = loaded.run
        self.arms: tuple[Arm, ...] = loaded.references  # what the other factors' levels do, has figures of its own
        self.baseline = loaded.baseline
        self.summary: pd.DataFrame = summary(loaded.frame)
        self.ratios: pd.DataFrame = loaded.ratios()
        self.findings: tuple[Finding, ...] = findings(loaded, self.ratios)

    @classmethod
    def read(cls, run_folder: Path) -> Material:
        """Raises ResultsError when the folder can't be read. The last one is kept as long as the folder is as it was:
        a report is written from it, and then shown.
        """
        return _read(run_folder, _state_of(run_folder))

    @cached_property
    def measured(self) -> pd.DataFrame:
        """The observations that count, as `lab.analysis.data.Observed` has them; chosen once, and asked often."""
        return self.loaded.measured

    @cached_property
    def observed(self) -> pd.DataFrame:
        """The same and the probes' answers, in the order in which they were recorded."""
        return self.loaded.frame.loc[sorted(self.measured.index.union(self.loaded.answers.index))]

    @cached_property
    def _enough_requests(self) -> dict[str, bool]:
        frame = self.measured
        rows = frame[(frame["quantity"] == "load.latency.p99") & frame["value"].notna()]
        return {
            str(arm): min(raw.get("requests", 0) if isinstance(raw, dict) else 0 for raw in of_arm) >= FEWEST_FOR_P99
            for arm, of_arm in rows.groupby("arm", observed=True)["detail"]
        }

    @cached_property
    def _values(self) -> dict[tuple[str, str, str], Value]:
        names = [each.name for each in fields(Value) if each.name != "unit"]
        return _with_any_state(
            {
                (row["quantity"], row["state"], row["arm"]): Value(
                    **{name: row[name] for name in names}, unit=_unit(row["quantity"], row["unit"])
                )
                for row in self.summary.to_dict("records")
            }
        )

    @cached_property
    def _ratios(self) -> dict[tuple[str, str, str], Ratio]:
        names = [each.name for each in fields(Ratio) if each.name != "judged"]
        return _with_any_state(
            {
                (row["quantity"], row["state"], row["arm"]): Ratio(
                    **{name: row[name] for name in names}, judged=judgement(row)
                )
                for row in self.ratios.to_dict("records")
            }
        )

    @cached_property
    def cubes(self) -> tuple[Cube, ...]:
        """Every judged quantity at every combination of the factors' levels; none without factors."""
        return tuple(cubes(self.loaded))

    @cached_property
    def effects(self) -> pd.DataFrame:
        """What the factors do, in the order in which they were named: see `lab.analysis.factors.effects.effects`."""
        table = effects(self.loaded)
        declared = [raw["name"] for raw in self.run.settings.get("factors", [])]
        return table.sort_values(
            "factor", key=lambda names: names.map(declared.index), kind="stable", ignore_index=True
        )

    @cached_property
    def owed(self) -> dict[str, Owed]:
        """What the arms owed right after their start, by label; none where it was not measured."""
        table = owed(self.loaded)
        return {
            row["arm"]: Owed(ratio=row["ratio"], low=row["low"], high=row["high"], judged=judgement(row))
            for row in table.to_dict("records")
        }

    @cached_property
    def isolation(self) -> tuple[Probe, ...]:
        """What the probes answered: see `lab.reports.answers.matrix`."""
        return matrix(self.loaded.answers, self.arms)

    @cached_property
    def by_request(self) -> pd.DataFrame:
        """How long an answer took, by its number: see `lab.analysis.debt.by_request`."""
        return by_request(self.loaded.frame)

    @cached_property
    def went_on(self) -> dict[str, float]:
        """Of arms that were restored, by label, the median of the seconds from the request until a copy went on."""
        return went_on(self.loaded.frame)

    @cached_property
    def levels(self) -> str:
        """The first levels of the factors, at which `arms` are: ``memory=64M, cpus=0.5``; "" without factors."""
        return ", ".join(f"{raw['name']}={raw['levels'][0]}" for raw in self.run.settings.get("factors", []))

    @cached_property
    def figures(self) -> dict[str, dict[str, object]]:
        """The figures of the scenario's own work, as the run declares them, by quantity."""
        work = self.run.settings.get("work")
        declared = work.get("figures", []) if isinstance(work, dict) else []
        return {f"work.{each['name']}": each for each in declared}

    def label(self, quantity: str) -> str:
        """The quantity's name for people, as this run has it; the scenario's own for a figure of its work."""
        known = called(quantity, self.run)
        return known.label if known else str(self.figures.get(quantity, {}).get("label") or label(quantity))

    def definition(self, quantity: str) -> str:
        """What it means, in a line; "" when nobody says."""
        if (known := called(quantity, self.run)) is not None:
            return known.definition
        return str(self.figures.get(quantity, {}).get("definition", ""))

    def more_is_better(self, quantity: str) -> bool:
        """Whether a longer bar is the better one."""
        return quantity in RATES or bool(self.figures.get(quantity, {}).get("more_is_better"))

    def unit(self, quantity: str) -> str:
        """The unit of its samples; "" when there are none."""
        units = self.summary.loc[self.summary["quantity"] == quantity, "unit"]
        return str(units.iloc[0]) if len(units) else ""

    def value(self, quantity: str, arm: str, state: str = "") -> Value | None:
        """None when it was never observed, or never with success. ``state`` "" takes the first that there is."""
        found = self._values.get((quantity, state, arm))
        return found if found is not None and not math.isnan(found.median) else None

    def attempts(self, quantity: str, arm: str, state: str = "") -> Value | None:
        """Like value, but also when every attempt failed."""
        return self._values.get((quantity, state, arm))

    def beside(self, quantity: str, arm: str, state: str = "") -> str:
        """What the arm's engine takes of the same beside it, in words: no instance is charged with it. "" where there
        is none, or it is less than a hundredth of the arm's own.
        """
        own = self.value(quantity, arm, state)
        value = self.value(ENGINES[quantity], arm, state) if quantity in ENGINES else None
        if own is None or value is None or value.median < own.median / 100:
            return ""
        return f"and its engine {format_value(value.median, value.unit)}"

    def lost(self, quantity: str, arm: str, state: str = "") -> str:
        """How many attempts of an arm failed that has no median for it, in words: ``3 of 6 failed``; "" mostly."""
        found = self.attempts(quantity, arm, state)
        if found is None or not math.isnan(found.median) or not (failed := found.failed + found.timeout):
            return ""
        return f"{failed} of {failed + found.n} failed"

    def ratio(self, quantity: str, arm: str, state: str = "") -> Ratio | None:
        """None for the baseline itself, and when one of the two was never observed."""
        return self._ratios.get((quantity, state, arm))

    def has(self, prefix: str) -> bool:
        """Whether any quantity that starts with ``prefix`` has a value."""
        names = self.summary[self.summary["n"] > 0]["quantity"]
        return bool(names.astype(str).str.startswith(prefix).any())

    def points(self, quantity: str, arm: str) -> pd.DataFrame:
        """Every successful observation of a series that has no state: columns block and value."""
        frame = self.measured
        chosen = (frame["quantity"] == quantity) & (frame["arm"] == arm) & (frame["state"] == "")
        return frame.loc[chosen & frame["value"].notna(), ["block", "value"]]

    @property
    def twin(self) -> Arm | None:
        """The second label of the A/A pair."""
        return next((arm for arm in self.loaded.all_arms if arm.label.endswith(TWIN)), None)

    def enough_requests(self, arm: str) -> bool:
        """Whether a p99 of this arm rests on enough requests in each of its runs.

        A sample's ``detail["requests"]`` says how many there were; without it the answer is no.
        """
        return self._enough_requests.get(arm, False)


def _with_any_state(found: dict[tuple[str, str, str], T]) -> dict[tuple[str, str, str], T]:
    for (quantity, _, arm), value in list(found.items()):
        found.setdefault((quantity, "", arm), value)
    return found


def _unit(quantity: str, unit: str) -> str:
    """CPU seconds per second is a ratio, but nobody reads 0.0004 as well as 400 µs per second."""
    return "seconds/s" if quantity == "cpu.idle" else unit


def stamp(arm: Arm) -> str:
    """What executes its instructions, in the words every table and plot uses."""
    words = {Accelerator.NATIVE: "native", Accelerator.KVM: "KVM", Accelerator.TCG: "TCG emulation"}[arm.accelerator]
    where = f"{words} on an emulated host" if arm.nested else words
    return f"{where}, another system" if arm.foreign else where


def stamped(arm: Arm) -> str:
    """The arm's label with its accelerator where that is not the bare host: ``vm (TCG emulation)``."""
    return arm.label if arm.accelerator is Accelerator.NATIVE else f"{arm.label} ({stamp(arm)})"


@lru_cache(maxsize=1)
def _read(run_folder: Path, state: tuple[tuple[int, int], ...]) -> Material:
    return Material(load(run_folder))


def _state_of(run_folder: Path) -> tuple[tuple[int, int], ...]:
    """When the files of a run were written, and their sizes."""
    found = [(run_folder / name).stat() for name in (RUN, SAMPLES, PROGRESS) if (run_folder / name).exists()]
    return tuple((status.st_mtime_ns, status.st_size) for status in found)
