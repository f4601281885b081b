"""Runs of many made-up hosts whose truth is known, written as columns in a moment. Nothing in them was measured.

Each host has a true ratio of its own to the baseline, log-normal around the one of all; each run of it another one
around that; each block noise of its own. Seconds differ from host to host by up to a factor of a hundred, so that
whoever puts seconds together is far off.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from synthetic import BACKENDS, _run

from lab.analysis.inference.statistics import Floats
from lab.results.codec import encode_run
from lab.results.columns import COLUMNS, COMPRESSION
from lab.results.record import Arm, Ending, Run
from lab.results.store import PARQUET, RUN

GROUNDS = {"bare": "hardware", "nested": "virtual", "emulated": "emulated"}
UNITS = {"boot.total": "seconds", "memory.pss": "bytes"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """``ratio`` is the true mean (of logarithms) of each arm to the process; ``tau`` scatters hosts around it,
    ``between_runs`` a host's runs, ``noise`` an arm in a block. ``deviants`` multiplies a host's own ratio,
    ``special`` changes what its run.json says, ``kinds`` says what hosts are where they are not all bare.
    """

    hosts: int
    runs: int = 1
    blocks: int = 10
    ratio: float = 1.2
    tau: float = 0.05
    between_runs: float = 0.0
    noise: float = 0.10
    arms: Sequence[str] = ("container",)
    quantities: Sequence[str] = ("boot.total",)
    seed: int = 1
    deviants: Mapping[int, float] = field(default_factory=dict)
    special: Mapping[int, Mapping[str, Any]] = field(default_factory=dict)
    kinds: Mapping[int, str] = field(default_factory=dict)


Truths = dict[str, dict[tuple[str, str], float]]
"""The true ratio of each host, by its identity, arm and quantity."""


def write_fleet(root: Path, fleet: Fleet) -> Truths:
    """Folders ``root``/host-N/run-N. Every arm's every quantity has a truth of its own on each host."""
    generator = np.random.default_rng(fleet.seed)
    truths = {}
    shape = len(fleet.arms), len(fleet.quantities)
    for number in range(fleet.hosts):
        middle = math.log(fleet.ratio * fleet.deviants.get(number, 1.0))
        true = middle + fleet.tau * generator.normal(size=shape)
        seconds = math.exp(generator.uniform(math.log(0.1), math.log(10)))
        run = described(fleet, number)
        truths[str(run.host["identity"])] = {
            (arm, quantity): math.exp(true[place, nth])
            for place, arm in enumerate(fleet.arms)
            for nth, quantity in enumerate(fleet.quantities)
        }
        for repeated in range(fleet.runs):
            own = true + fleet.between_runs * generator.normal(size=shape)
            folder = root / f"host-{number:03}" / f"run-{repeated:03}"
            folder.mkdir(parents=True)
            write_columns(folder / PARQUET, fleet, generator, own, seconds)
            (folder / RUN).write_text(encode_run(replace(run, name=folder.name, seed=repeated)))
    return truths


def described(fleet: Fleet, number: int) -> Run:
    """What every run of a host says of itself."""
    run = _run(fleet.blocks, 1)
    base = next(arm for arm in run.arms if arm.label == "process")
    made = [BACKENDS[label] for label in fleet.arms]
    arms = (
        base,
        *(_arm(base, label, order) for label, order in zip(fleet.arms, [each.order for each in made], strict=True)),
    )
    kind = fleet.kinds.get(number, "bare")
    platform = {"ground": GROUNDS[kind], "by": "none" if kind == "bare" else "qemu", "title": kind, "effect": ""}
    host = {**run.host, "identity": f"{number:012x}", "platform": platform}
    return replace(
        run, arms=arms, ended_because=Ending.BLOCKS, host={**host, **fleet.special.get(number, {})},
        started="2026-11-28T12:00:00+00:00",
    )  # fmt: skip


def _arm(base: Arm, label: str, order: int) -> Arm:
    return replace(
        base, label=label, backend=label, title=label, order=order, accelerator=BACKENDS[label].accelerator
    )


def write_columns(path: Path, fleet: Fleet, generator: np.random.Generator, logs_of: Floats, seconds: float) -> None:
    """The samples of one run, in which an arm's quantity has the ratio whose logarithm ``logs_of`` has."""
    arms = ["process", *fleet.arms]
    shape = fleet.blocks, len(arms), len(fleet.quantities)
    logs = fleet.noise * generator.normal(size=shape) + 0.1 * generator.normal(size=(fleet.blocks, 1, 1))
    logs[:, 1:] += logs_of
    n = int(np.prod(shape))
    block, arm, quantity = (index.reshape(-1) for index in np.indices(shape))
    names = np.array(fleet.quantities)[quantity]
    columns: dict[str, Any] = {
        field.name: pa.array(np.zeros(n, "float64")).cast(field.type) if pa.types.is_floating(field.type)
        else pa.array(np.zeros(n, "int32")) if pa.types.is_integer(field.type)
        else pa.array(np.zeros(n, bool)) if pa.types.is_boolean(field.type) else pa.array([""] * n)
        for field in COLUMNS
    }  # fmt: skip
    columns |= {
        "metric": [name.partition(".")[0] for name in names], "quantity": names.tolist(),
        "value": seconds * np.exp(logs.reshape(-1)), "unit": [UNITS.get(name, "1") for name in names],
        "backend": np.array(arms)[arm].tolist(), "arm": np.array(arms)[arm].tolist(),
        "block": pa.array((block + 1).astype("int32")), "session": pa.array(np.ones(n, "int32")),
        "state": ["idle" if name.startswith("memory.") else "" for name in names], "status": ["ok"] * n,
        "accelerator": ["native"] * n, "detail": ["{}"] * n,
        "instance": [f"b{each + 1}-{label}" for each, label in zip(block, np.array(arms)[arm], strict=True)],
    }  # fmt: skip
    pq.write_table(pa.table(columns, schema=COLUMNS), path, compression=COMPRESSION)


def told(run: Path) -> dict[str, Any]:
    """What a run's run.json says."""
    found: dict[str, Any] = json.loads((run / RUN).read_text())
    return found
