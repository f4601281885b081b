"""Very many made-up runs in a moment, for tests of what reads them: nothing in them was measured."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from synthetic import write_run

from lab.results.codec import encode_run
from lab.results.columns import COLUMNS, COMPRESSION
from lab.results.store import PARQUET, RUN

QUANTITIES = ("boot.total", "boot.listening", "memory.pss", "cpu.boot")
ARMS = ("process", "container", "container#aa", "microvm", "vm")
BLOCKS = 5
SAMPLES_PER_RUN = len(QUANTITIES) * len(ARMS) * BLOCKS


def write_crowd(root: Path, runs: int, scratch: Path) -> list[Path]:
    """``runs`` folders below ``root``, each SAMPLES_PER_RUN samples and an hour later than the one before it.

    They share a few parquet files by hard link, which `samples.parquet` of a finished run may: nobody appends to it.
    Boots become 1 % slower from each such file to the next.
    """
    text = encode_run(replace(write_run(scratch, blocks=1).run, name="NAME", started="STARTED"))
    files = [_columns(scratch / f"{number}.parquet", number) for number in range(16)]
    began = datetime(2026, 1, 1, tzinfo=UTC)
    made = []
    for number in range(runs):
        path = root / f"run-{number:05}"
        path.mkdir(parents=True)
        started = (began + timedelta(hours=number)).isoformat()
        (path / RUN).write_text(text.replace("NAME", path.name).replace("STARTED", started))
        (path / PARQUET).hardlink_to(files[number * len(files) // runs])
        made.append(path)
    return made


def _columns(path: Path, step: int) -> Path:
    generator = np.random.default_rng(step)
    n = SAMPLES_PER_RUN
    arms = np.tile(np.repeat(ARMS, len(QUANTITIES)), BLOCKS)
    fixed = {"metric": "boot", "unit": "seconds", "status": "ok", "accelerator": "native", "detail": "{}"}
    nothing = {field.name: "" if field.type == pa.string() else 0 for field in COLUMNS}
    columns: dict[str, object] = {name: [value] * n for name, value in (nothing | fixed).items()}
    columns |= {
        "quantity": np.tile(QUANTITIES, n // len(QUANTITIES)).tolist(),
        "value": np.exp(generator.normal(0, 0.1, n)) * 1.01**step,
        "arm": arms.tolist(),
        "backend": [str(arm).removesuffix("#aa") for arm in arms],
        "block": np.repeat(np.arange(1, BLOCKS + 1), n // BLOCKS).astype("int32"),
        "warmup": np.zeros(n, bool),
    }
    pq.write_table(pa.table(columns, schema=COLUMNS), path, compression=COMPRESSION)
    return path
