"""Very many made-up nights of one plan, with planted changes: nothing in them was measured."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from synthetic import write_run

from lab.results.codec import encode_run
from lab.results.columns import COLUMNS, COMPRESSION
from lab.results.store import PARQUET, RUN, SAMPLES

ARMS = ("process", "container", "microvm")
QUANTITIES: Mapping[str, tuple[str, str, float]] = {  # unit, state, about how much
    "boot.total": ("seconds", "", 0.2),
    "teardown.total": ("seconds", "", 0.02),
    "memory.pss": ("bytes", "idle", 2e7),
    "cpu.per_1000_requests": ("seconds", "", 0.4),
    "load.requests_per_second": ("requests/s", "", 2500.0),
    "load.latency.p50": ("seconds", "", 0.001),
}
BLOCKS = 6
BEGAN = datetime(2026, 1, 1, 3, 30, tzinfo=UTC)

Factor = Callable[[int, str, str], float]
"""What a night, arm and quantity is multiplied with."""


def write_nights(
    root: Path,
    nights: int,
    *,
    factor: Factor = lambda night, arm, quantity: 1.0,
    told: Callable[[int, dict[str, Any]], None] = lambda night, run: None,
    first: int = 0,
    seed: int = 1,
    night_scatter: float = 0.02,
    scatter: float = 0.03,
) -> list[Path]:
    """``nights`` finished runs below ``root``, a day apart, from the number ``first`` on; ``told`` may edit a night's
    run.json.

    A night shares a deviation of its own (``night_scatter``, log-normal) per line; blocks scatter around it.
    """
    scratch = root / ".made"
    folder = write_run(scratch, blocks=1)
    template = json.loads(encode_run(folder.run))
    template["arms"] = [arm for arm in template["arms"] if arm["label"] in ARMS]
    made = []
    for night in range(first, first + nights):
        path = root / f"night-{night:05}"
        path.mkdir(parents=True)
        run = json.loads(json.dumps(template))
        started = BEGAN + timedelta(days=night)
        run |= {"name": path.name, "started": started.isoformat(), "ended": started.isoformat()}
        run["ended_because"] = "blocks done"
        run["host"]["cpu"]["microcode"] = "0x1"
        told(night, run)
        (path / RUN).write_text(json.dumps(run))
        (path / SAMPLES).touch()
        _write_columns(path / PARQUET, night, factor, seed, night_scatter, scatter)
        made.append(path)
    return made


def _write_columns(path: Path, night: int, factor: Factor, seed: int, night_scatter: float, scatter: float) -> None:
    chance = np.random.default_rng([seed, night])
    rows = [(block, arm, name) for block in range(1, BLOCKS + 1) for arm in ARMS for name in QUANTITIES]
    own = {(arm, name): chance.normal(0, night_scatter) for arm in ARMS for name in QUANTITIES}
    values = [
        QUANTITIES[name][2] * factor(night, arm, name) * float(np.exp(own[arm, name] + chance.normal(0, scatter)))
        for _, arm, name in rows
    ]
    n = len(rows)
    nothing = {field.name: "" if field.type == pa.string() else 0 for field in COLUMNS}
    columns: dict[str, object] = {name: [value] * n for name, value in nothing.items()}
    columns |= {
        "metric": [name.partition(".")[0] for _, _, name in rows],
        "quantity": [name for _, _, name in rows],
        "unit": [QUANTITIES[name][0] for _, _, name in rows],
        "state": [QUANTITIES[name][1] for _, _, name in rows],
        "value": values,
        "arm": [arm for _, arm, _ in rows],
        "backend": [arm for _, arm, _ in rows],
        "block": pa.array([block for block, _, _ in rows], pa.int32()),
        "warmup": [False] * n,
        "status": ["ok"] * n,
        "accelerator": ["native"] * n,
        "detail": ["{}"] * n,
    }
    pq.write_table(pa.table(columns, schema=COLUMNS), path, compression=COMPRESSION)
