"""What each step of a ladder stops, and what it costs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from lab.analysis.data import Observed, detail
from lab.analysis.inference import estimate
from lab.analysis.inference.judge import EXPLORATORY, HEADLINE, Judgement, judge, judgement
from lab.analysis.quantities import format_interval, format_value
from lab.results.record import Arm, Status

START, BOOT, PSS, MEMORY = "ladder.start", "boot.total", "memory.pss", "ladder.memory"
QUANTITIES = (START, BOOT, MEMORY, PSS)
JUDGED = (START, MEMORY)
ANONYMOUS, KERNEL, USAGE = "memory.cgroup.anon", "memory.cgroup.kernel", "memory.cgroup.usage"
SHARED = "memory.cgroup.shmem"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """One quantity on one rung: its median, the step from the rung below, both with intervals of 95 %.

    ``step`` is what the rung adds to the one `below` it: the ratio of the two, as `lab.analysis.inference.estimate`
    has it from the rounds, times the median of that. NaN where there is none: the first rung has no step, a
    rung that never came up has nothing. ``judged`` is what may be said of it, None without a step.
    """

    arm: str
    quantity: str
    unit: str
    n: int
    failed: int
    median: float
    low: float
    high: float
    step: float
    step_low: float
    step_high: float
    judged: Judgement | None

    @property
    def is_sure(self) -> bool:
        """Whether a difference to the rung below may be claimed."""
        return self.judged is not None and self.judged.claim

    def __str__(self) -> str:
        if not self.n:
            return "did not come up" if self.failed else "not measured"
        interval = format_interval(self.low, self.high, self.unit)
        return format_value(self.median, self.unit) + (f" ({interval})" if self.low == self.low else "")

    def tell_step(self) -> str:
        """The step in words: ``+1.9 ms``, ``±0`` where it can't be told from scatter, "" where there is none."""
        if math.isnan(self.step):
            return ""
        if math.isnan(self.step_low):
            return f"{signed(self.step, self.unit)} (too few rounds for an interval)"
        interval = f"{signed(self.step_low, self.unit)} to {signed(self.step_high, self.unit)}"
        assert self.judged is not None
        return f"{signed(self.step, self.unit)} ({interval})" if self.is_sure else f"{self.judged.words} ({interval})"

    @property
    def glance(self) -> str:
        """The step in a word: ``+1.9 ms``, ``≈`` where it can't be told from scatter, ``+1.9 ms ?`` where rounds are
        too few to tell, "" where there is none.
        """
        if math.isnan(self.step):
            return ""
        if math.isnan(self.step_low):
            return f"{signed(self.step, self.unit)} ?"
        return signed(self.step, self.unit) if self.is_sure else "≈"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One probe's answer on one rung. ``changed``: it reaches the host where on the last rung with an answer it did
    not, or the reverse.
    """

    answer: str
    reach: str  # open, closed, own or unknown, see `lab.reports.answers`
    evidence: str
    changed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One probe over all rungs. ``stopped_by`` is the rung behind the last one on which it reached the host.

    "" when it does so on the last rung too; the first rung when it never did; None when nobody could tell, or only of
    rungs on which it does not, so that what is below might have stopped it.
    """

    probe: str
    group: str
    question: str
    cells: tuple[Cell | None, ...]
    stopped_by: str | None


def costs(loaded: Observed) -> dict[tuple[str, str], Cost]:
    """By rung and quantity. The steps of `JUDGED` are one headline family, those of the others are exploratory."""
    frame, known = loaded.measured, below(loaded.all_arms)
    tables = {
        quantity: _memory(frame) if quantity == MEMORY else _by_round(frame, quantity) for quantity in QUANTITIES
    }
    steps = [
        (before, arm, quantity)
        for quantity in QUANTITIES
        for arm, before in known.items()
        if {before, arm} <= set(tables[quantity])
    ]
    judged = {}
    if steps:
        with np.errstate(divide="ignore", invalid="ignore"):
            ratios = [tables[name][arm] / tables[name][before] for before, arm, name in steps]
            logs = np.log(np.stack([ratio.to_numpy(dtype=np.float64) for ratio in ratios]))
        rows = estimate.estimates(np.where(np.isfinite(logs), logs, np.nan)).assign(bar="")
        families = pd.Series([HEADLINE if name in JUDGED else EXPLORATORY for _, _, name in steps])
        of = [(arm, name) for _, arm, name in steps]
        judged = dict(zip(of, judge(rows, families).to_dict("records"), strict=True))
    found: dict[tuple[str, str], Cost] = {}
    for quantity in QUANTITIES:
        for arm in loaded.all_arms:
            values = tables[quantity].get(arm.label, pd.Series(dtype="float64"))
            failed = frame[(frame["arm"] == arm.label) & (frame["status"] != Status.OK)]
            row = judged.get((arm.label, quantity))
            middle = found[known[arm.label], quantity].median if arm.label in known else math.nan
            found[arm.label, quantity] = _cost(arm.label, quantity, values, row, middle, len(failed))
    return found


def below(arms: Sequence[Arm]) -> dict[str, str]:
    """For each rung but the first, the one that its step starts from: the one before, and for a kernel of its own the
    last one on the host's. Kernels are taken instead of each other, and none adds to another.
    """
    found = dict[str, str]()
    last = ""
    for arm in arms:
        if last:
            found[arm.label] = last
        if not (last and arm.has_own_kernel):
            last = arm.label
    return found


def _memory(frame: pd.DataFrame) -> pd.DataFrame:
    """Bytes that are the rung's own: anonymous and shared memory, and the kernel's on its behalf with namespaces.

    gVisor and User-mode Linux keep their guest's RAM in shared memory; an older run does not tell it. Pages of files
    are left out: they are charged to whoever touched them first, which is chance. Where the kernel doesn't tell its
    own part, all that is charged.
    """
    own = _by_round(frame, ANONYMOUS) + _by_round(frame, KERNEL)
    own = own.add(_by_round(frame, SHARED).reindex_like(own).fillna(0))
    return own if own.notna().to_numpy().any() else _by_round(frame, USAGE)


def _by_round(frame: pd.DataFrame, quantity: str) -> pd.DataFrame:
    """A row per round, a column per rung; NaN where it did not come up."""
    rows = frame[frame["quantity"] == quantity]
    return rows.pivot_table(index="block", columns="arm", values="value", aggfunc="median", observed=True)


def _cost(
    arm: str, quantity: str, values: pd.Series, row: Mapping[Any, Any] | None, before: float, failed: int
) -> Cost:
    """``row`` is the judged ratio to the rung before, whose median is ``before``."""
    known = values.dropna().to_numpy(dtype=np.float64)
    low, high = estimate.median_interval(known)
    ratios = [math.nan] * 3 if row is None else [row[name] for name in ("ratio", "low", "high")]
    step, step_low, step_high = (before * (ratio - 1) for ratio in ratios)
    return Cost(
        arm=arm,
        quantity=quantity,
        unit="bytes" if quantity in (MEMORY, PSS) else "seconds",
        n=len(known),
        failed=failed,
        median=float(np.median(known)) if len(known) else math.nan,
        low=low,
        high=high,
        step=step,
        step_low=step_low,
        step_high=step_high,
        judged=judgement(row) if row is not None else None,
    )


def rows(loaded: Observed) -> tuple[Row, ...]:
    """Every probe that was asked, in the order of the rungs that stop them; what nothing stops comes last."""
    arms = loaded.all_arms
    asked: dict[str, dict[str, tuple[str, str, str]]] = {}
    about: dict[str, tuple[str, str]] = {}
    for answer in loaded.answers.itertuples():
        probe = str(answer.quantity).removeprefix("isolation.")
        raw: dict[str, Any] = answer.detail if isinstance(answer.detail, dict) else {}
        about.setdefault(probe, (detail(raw, "group"), detail(raw, "question") or probe))
        reach = detail(raw, "reach") if answer.status == Status.OK else "unknown"
        asked.setdefault(probe, {})[str(answer.arm)] = (str(answer.text), reach or "unknown", detail(raw, "evidence"))
    found = [_row(probe, *about[probe], cells, arms) for probe, cells in asked.items()]
    order = {arm.label: place for place, arm in enumerate(arms)} | {"": len(arms)}
    return tuple(sorted(found, key=lambda row: len(order) if row.stopped_by is None else order[row.stopped_by]))


def _row(probe: str, group: str, question: str, seen: dict[str, tuple[str, str, str]], arms: Sequence[Arm]) -> Row:
    cells: list[Cell | None] = []
    before = ""
    for arm in arms:
        if arm.label not in seen:
            cells.append(None)
            continue
        answer, reach, evidence = seen[arm.label]
        changed = reach != "unknown" and before != "" and (before == "open") is not (reach == "open")
        cells.append(Cell(answer=answer, reach=reach, evidence=evidence, changed=changed))
        before = before if reach == "unknown" else reach
    return Row(
        probe=probe, group=group, question=question, cells=tuple(cells),
        stopped_by=_stopped_by([cell.reach if cell else "unknown" for cell in cells], arms),
    )  # fmt: skip


def _stopped_by(reaches: Sequence[str], arms: Sequence[Arm]) -> str | None:
    known = [(place, reach) for place, reach in enumerate(reaches) if reach != "unknown"]
    if not known:
        return None
    closed = [place for place, reach in known if reach != "open"]
    last_open = max((place for place, reach in known if reach == "open"), default=-1)
    if last_open < 0 and known[0][0] > 0:
        return None
    behind = [place for place in closed if place > last_open]
    if not behind:
        return ""
    return arms[behind[0]].label


def stops(found: Sequence[Row]) -> dict[str, list[str]]:
    """The probes that each rung stops, by its name; a probe that reopens later counts for who stops it at last."""
    stopped: dict[str, list[str]] = {}
    for row in found:
        if row.stopped_by:
            stopped.setdefault(row.stopped_by, []).append(row.probe)
    return stopped


def still_open(found: Sequence[Row], place: int) -> int:
    """How many probes reach the host on the rung at ``place``."""
    return sum(1 for row in found if (cell := row.cells[place]) is not None and cell.reach == "open")


def signed(value: float, unit: str) -> str:
    """A difference with its sign: ``+1.9 ms``."""
    if math.isnan(value) or value == 0:
        return format_value(value, unit, 2)
    return ("+" if value > 0 else "−") + format_value(abs(value), unit, 2)
