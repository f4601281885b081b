"""What a neighbour does to an instance: how much slower it answers, whether it lives, and which limit held."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lab.analysis.data import Observed
from lab.analysis.inference.estimate import estimates
from lab.analysis.inference.judge import EXPLORATORY, HEADLINE, Judgement, judge, judgement
from lab.analysis.inference.statistics import Floats
from lab.results.record import Status

RATE, LATENCY, SURVIVED, WOKEN = "noisy.rate", "noisy.latency.p99", "noisy.survived", "noisy.host_delay"
QUIET = "quiet"
SAVED_BY = {
    "cpu": "its CPU limit",
    "oom": "its memory limit (killed)",
    "memory": "its memory limit (reclaimed)",
    "pids": "its limit of processes",
    "bound cpu": "only lab's bound on CPU",
    "bound oom": "only lab's bound on memory (killed)",
    "bound memory": "only lab's bound on memory",
    "bound pids": "only lab's bound on processes",
}

OF_A_MACHINE = {
    "cpu": "the number of its virtual processors",
    "memory": "its RAM (killed by its own kernel)",
    "forks": "its own kernel's limit of processes",
}
"""A machine's limits are its size, which no cgroup of the host's counts."""

REFUSES = "disturb: "
"""With that word `lab/inside/disturb.c` says why it does not begin; killed by a limit, it says nothing."""

REFUSED_BY = {
    "full": "the size of its /dev/shm",
    "files": "its limit of open files (RLIMIT_NOFILE)",
    "watches": "its user's limit of inotify instances",
}
"""What refuses these, before any cgroup or machine's size does."""

OTHERWISE = "a limit that no cgroup of the host's counts: its own kernel's, or of a process"


@dataclass(frozen=True, slots=True, kw_only=True)
class Disturbance:
    """One kind of neighbour beside one backend, over all blocks.

    ``slowdown`` is requests per second in quiet over those beside the neighbour, with an interval of 95 %, as
    `lab.analysis.inference.estimate` has it; NaN where it can't be said, infinite where nothing was answered. A
    victim that answered nobody in ``silent`` of the blocks was slowed by at least as much as in the worst of the
    others: it counts as that much, and the slowdown is a lower bound. ``judged`` is what may be said of it: the kinds
    beside one backend in one condition are a headline family. ``latency`` is the ratio of the 99th percentiles, of
    those that answered. ``survived`` of ``times``; ``met`` are the limits that the aggressor ran into, the most
    frequent first; ``host_delay_seconds`` is how late the host woke a process outside, at worst. ``undone`` says why
    the aggressor could not begin, where it never could; blocks in which it could not are in none of the figures.
    """

    arm: str
    limits: str
    kind: str
    slowdown: float
    low: float
    high: float
    latency: float
    survived: int
    times: int
    met: tuple[str, ...]
    host_delay_seconds: float
    judged: Judgement | None = None
    silent: int = 0
    undone: str = ""

    @property
    def factor(self) -> str:
        """The slowdown alone."""
        if self.undone:
            return "not disturbed"
        if math.isinf(self.slowdown):
            return "no answer at all"
        if math.isnan(self.slowdown):
            return "not measured"
        return f"{'at least ' * bool(self.silent)}{self.slowdown:.2f} ×"

    @property
    def sure(self) -> str:
        """How sure it is; "" where there is nothing to be sure of."""
        if not math.isfinite(self.slowdown):
            return ""
        if math.isnan(self.low):
            return "too few blocks for an interval"
        silent = f"; in {self.silent} of {self.times} blocks nothing was answered" * bool(self.silent)
        return f"{self.low:.2f} to {self.high:.2f}: {self.judged.words if self.judged else 'not judged'}{silent}"

    @property
    def says(self) -> str:
        """Both."""
        return f"{self.factor} ({self.sure})" if self.sure else self.factor


def disturbances(loaded: Observed) -> list[Disturbance]:
    """Every kind beside every backend, in both conditions; the quiet ones are what they are compared with."""
    frame = loaded.frame[loaded.frame["metric"] == "noisy"].copy()
    for key in ("kind", "limits"):
        frame[key] = frame["detail"].map(lambda detail, key=key: str(detail.get(key, "")))
    order = [arm.label for arm in loaded.all_arms]
    blocks = np.sort(frame["block"].unique())
    seen = [
        _Seen(str(arm), str(limits), str(kind), rows, *_logs(group[group["kind"] == QUIET], rows, blocks))
        for (arm, limits), group in frame.groupby(["arm", "limits"], sort=False, observed=True)
        for kind, rows in group[group["kind"] != QUIET].groupby("kind", sort=False, observed=True)
    ]
    found = [_one(*each) for each in zip(seen, *_judged(seen), strict=True)]
    kinds = sorted({each.kind for each in found})
    return sorted(
        found, key=lambda each: (kinds.index(each.kind), order.index(each.arm), each.limits == "with limits")
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Quiet:
    """The victim alone, over all blocks: median requests per second, median of the 99th percentiles in seconds."""

    arm: str
    limits: str
    rate: float
    latency_seconds: float


def quiets(loaded: Observed) -> list[Quiet]:
    """What every slowdown is relative to, in the order of the backends, without limits first."""
    frame = loaded.frame[loaded.frame["metric"] == "noisy"]
    quiet = frame[frame["detail"].map(lambda detail: detail.get("kind") == QUIET)]
    limits = quiet["detail"].map(lambda detail: str(detail.get("limits", "")))
    order = [arm.label for arm in loaded.all_arms]
    found = [
        Quiet(
            arm=str(arm),
            limits=str(where),
            rate=float(rows[rows["quantity"] == RATE]["value"].median()),
            latency_seconds=float(rows[rows["quantity"] == LATENCY]["value"].median()),
        )
        for (arm, where), rows in quiet.groupby(["arm", limits], sort=False, observed=True)
    ]
    return sorted(found, key=lambda each: (order.index(each.arm), each.limits == "with limits"))


def fallen(loaded: Observed) -> list[str]:
    """Pairs that did not come up, or whose victim did not come up again: a line each, with the reason."""
    frame = loaded.frame[(loaded.frame["quantity"] == RATE) & (loaded.frame["status"] != Status.OK)]
    rows = ((row, row["detail"]) for _, row in frame.iterrows())
    return [
        f"{row['arm']} {detail['limits']}, block {row['block']}: {row['text']}"
        for row, detail in rows
        if detail.get("fell")
    ]


@dataclass(frozen=True, slots=True)
class _Seen:
    """What was observed of one kind beside one backend: a logarithm per block of each ratio, NaN for none."""

    arm: str
    limits: str
    kind: str
    rows: pd.DataFrame
    slowdown: Floats
    latency: Floats
    silent: int  # of the blocks of ``slowdown``, those that are lower bounds


def _logs(quiet: pd.DataFrame, rows: pd.DataFrame, blocks: NDArray[np.int64]) -> tuple[Floats, Floats, int]:
    """Per block the logarithms of slowdown and of the ratio of latencies, and how many of the former are bounds."""
    done = rows[rows["detail"].map(_undone) == ""]
    rate, latency = (
        np.log(_by_block(above, quantity, blocks) / _by_block(below, quantity, blocks))
        for above, below, quantity in ((quiet, done, RATE), (done, quiet, LATENCY))
    )
    fell = done["detail"].map(lambda each: bool(each.get("fell")))
    asked = done[(done["quantity"] == RATE) & done["value"].isna() & ~fell]
    silent = np.isin(blocks, asked["block"]) & np.isnan(rate) & np.isfinite(_by_block(quiet, RATE, blocks))
    if np.isfinite(rate).any():
        rate[silent] = max(0.0, float(np.nanmax(rate)))
    return rate, latency, int(silent.sum())


def _judged(seen: list[_Seen]) -> tuple[list[dict[Hashable, Any]], list[dict[Hashable, Any]]]:
    """The judged rows of slowdowns and of latencies, in the order of ``seen``."""
    if not seen:
        return [], []
    logs = np.stack([each.slowdown for each in seen] + [each.latency for each in seen])
    table = estimates(logs)
    worse = [bool(each.silent) for each in seen] + [False] * len(seen)
    table["bar"] = [
        "it answered nobody at times: faster only where it did" if silent and not ratio > 1 else ""
        for silent, ratio in zip(worse, table["ratio"], strict=True)
    ]
    table["bar_same"] = ["it answered nobody at times: the same only where it did" if each else "" for each in worse]
    families = [f"{HEADLINE}:{each.arm}:{each.limits}" for each in seen] + [EXPLORATORY] * len(seen)
    rows = judge(table, pd.Series(families)).to_dict("records")
    return rows[: len(seen)], rows[len(seen) :]


def _one(seen: _Seen, slowdown: Mapping[Any, Any], latency: Mapping[Any, Any]) -> Disturbance:
    reasons = seen.rows["detail"].map(_undone)
    rows = seen.rows[reasons == ""]
    rates = rows[rows["quantity"] == RATE]
    is_dead = bool(len(rates)) and bool(rates["value"].isna().all())
    lived = rows[rows["quantity"] == SURVIVED]["value"]
    return Disturbance(
        arm=seen.arm,
        limits=seen.limits,
        kind=seen.kind,
        slowdown=math.inf if is_dead else float(slowdown["ratio"]),
        low=math.nan if is_dead else float(slowdown["low"]),
        high=math.nan if is_dead else float(slowdown["high"]),
        latency=float(latency["ratio"]),
        survived=int(lived.sum()),
        times=len(lived),
        met=_met(rates["detail"].tolist()),
        host_delay_seconds=float(seen.rows[seen.rows["quantity"] == WOKEN]["value"].max()),
        judged=None if is_dead else judgement(slowdown),
        silent=0 if is_dead else seen.silent,
        undone="" if len(rows) else str(reasons.iloc[0]),
    )


def _undone(detail: Mapping[str, Any]) -> str:
    """What lab's helper said when there was nothing that it may do here; "" where the aggressor did its worst."""
    said = str(detail.get("aggressor", {}).get("failed", ""))
    return said.removeprefix(REFUSES) if said.startswith(REFUSES) else ""


def _by_block(rows: pd.DataFrame, quantity: str, blocks: NDArray[np.int64]) -> Floats:
    """A value per block, NaN for one without."""
    values = rows[(rows["quantity"] == quantity) & (rows["value"] > 0)]
    found: Floats = values.groupby("block")["value"].median().reindex(blocks).to_numpy(dtype=np.float64)
    return found


def _met(details: list[dict[str, Any]]) -> tuple[str, ...]:
    """What the aggressor ran into. Who was killed had been reclaimed from before; the bound around all counts only
    where no limit of the aggressor's own did, and is all there is without limits, whichever group the kernel counts
    in.
    """
    seen: Counter[str] = Counter()
    for detail in details:
        limited = detail.get("limits") == "with limits"
        hits = {name if limited else f"bound {name.removeprefix('bound ')}" for name in detail.get("hits", {})}
        for name in hits:
            own, worse = name.removeprefix("bound "), name.replace("memory", "oom")
            if (own != name and own in hits) or (worse != name and worse in hits):
                continue
            seen[SAVED_BY.get(name, name)] += 1
        refused = int(detail.get("aggressor", {}).get("refused", 0)) > 0
        kind = str(detail.get("kind", ""))
        if not hits and detail.get("machine") and kind in OF_A_MACHINE and (refused or kind == "cpu"):
            seen[OF_A_MACHINE[kind]] += 1
        elif not hits and refused:
            seen[REFUSED_BY.get(kind, OTHERWISE)] += 1
    return tuple(name for name, _ in seen.most_common())
