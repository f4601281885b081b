"""Whole reports of made-up runs, by the thousand: a run folder is written, read by `lab.load`, and judged.

Nothing in them was measured. Every backend is at first the same thing; what differs is said by ``effects``.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats as distributions
from synthetic import BACKENDS, _run

import lab
from lab.analysis.quantities import QUANTITIES
from lab.experiment.plan import Plan, PlannedArm, arms
from lab.results.codec import encode_run
from lab.results.record import Ending

Noise = Callable[[np.random.Generator, tuple[int, ...]], Any]

NOT_COMPARED = ("host.", "caches.", "ksm.", "snapshot.", "work.", "job.", "boot.restored", "boot.addressed")
SERIES = tuple(
    (name, state)
    for name in QUANTITIES
    if not name.startswith(NOT_COMPARED)
    for state in (("idle", "after-load") if name.startswith("memory.") else ("",))
)
"""Every quantity that a comparison of a web application has, in each of its states."""

HEADLINES = ("boot.total", "memory.pss", "load.requests_per_second")
PAIRS = ("container", "microvm", "vm")
"""The arms that are compared with the process, which has the twin."""


def lognormal(generator: np.random.Generator, shape: tuple[int, ...]) -> Any:
    """Standard normal logarithms."""
    return generator.normal(0.0, 1.0, shape)


def skewed(generator: np.random.Generator, shape: tuple[int, ...]) -> Any:
    """As boots are: nothing is faster than fast, and some are late. Of standard deviation 1, as all of these."""
    return generator.exponential(1.0, shape)


def contaminated(generator: np.random.Generator, shape: tuple[int, ...]) -> Any:
    """One value in fifty lies ten standard deviations above."""
    return generator.normal(0.0, 1.0, shape) + 10.0 * (generator.random(shape) < 0.02)


def write(
    folder: Path,
    seed: int,
    *,
    blocks: int = 10,
    own: float = 0.10,
    shared: float = 0.10,
    noise: Noise = lognormal,
    effects: Mapping[tuple[str, str], float] | None = None,
    by_position: float = 0.0,
) -> Path:
    """A run folder. ``own`` and ``shared`` are standard deviations of logarithms: of an instance's own noise, and of
    what a block does to all. ``effects`` multiplies an arm's quantity. An instance that comes last in its block is
    slower by ``by_position`` (of the logarithm) than the first one.
    """
    generator = np.random.default_rng(seed)
    plan = Plan(
        arms=arms(tuple(BACKENDS)), seed=seed, blocks=blocks, budget_seconds=0.0,
    )  # fmt: skip
    labels = [arm.label for arm in plan.arms]
    logs = own * noise(generator, (len(SERIES), len(plan.arms), blocks))
    logs += shared * generator.normal(0.0, 1.0, (len(SERIES), 1, blocks))
    lines = []
    for block in range(1, blocks + 1):
        for position, arm in enumerate(plan.order(block)):
            place = labels.index(arm.label)
            for number, (quantity, state) in enumerate(SERIES):
                late = by_position * position / (len(plan.arms) - 1)
                factor = (effects or {}).get((arm.backend, quantity), 1.0)
                value = factor * float(np.exp(logs[number, place, block - 1] + late))
                lines.append(_line(quantity, state, arm, block, position, value))
    run = _run(blocks, seed)
    known = {arm.label: arm for arm in run.arms}
    run = replace(run, arms=tuple(replace(known[arm.backend], label=arm.label) for arm in plan.arms))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "run.json").write_text(encode_run(replace(run, ended_because=Ending.BLOCKS)))
    (folder / "samples.jsonl").write_text("\n".join(lines) + "\n")
    return folder


def _line(quantity: str, state: str, arm: PlannedArm, block: int, position: int, value: float) -> str:
    return json.dumps(
        {
            "metric": quantity.partition(".")[0], "quantity": quantity, "state": state, "value": value, "unit": "1",
            "backend": arm.backend, "arm": arm.label, "block": block, "position": position,
            "instance": f"b{block}-{arm.label}",
        }
    )  # fmt: skip


def scaled(trials: int) -> int:
    """So many trials, times LAB_TRIALS where that is set: to look at something quickly, or for longer."""
    return max(2, round(trials * float(os.environ.get("LAB_TRIALS", "1"))))


def reports(root: Path, count: int, first_seed: int = 1, **settings: Any) -> Iterator[pd.DataFrame]:
    """The tables of so many runs, each as a user gets it."""
    for seed in range(first_seed, first_seed + count):
        yield lab.load(write(root / "run", seed, **settings)).ratios()


def row(table: pd.DataFrame, quantity: str, arm: str, state: str = "") -> pd.Series:
    found = table[(table["quantity"] == quantity) & (table["arm"] == arm) & (table["state"] == state)]
    return found.iloc[0]


def is_below(hits: int, trials: int, rate: float, *, of: int = 1) -> bool:
    """Whether so many hits are compatible with ``rate`` or less, at 99 %: the binomial bound, one-sided.

    At 99 % for all together where this is one ``of`` so many rates that are looked at (Bonferroni).
    """
    return hits <= distributions.binom.ppf(1 - 0.01 / of, trials, rate)


def is_above(hits: int, trials: int, rate: float) -> bool:
    """Whether so many hits are compatible with ``rate`` or more, at 99 %."""
    return hits >= distributions.binom.ppf(0.01, trials, rate)


def tell(what: str) -> None:
    """Say it now, where pytest's -s lets it through."""
    sys.stdout.write(f"\n{what}\n")
    sys.stdout.flush()
