"""Samples as columns: samples.parquet. Kept apart because pyarrow is slow to import."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import fields
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from lab.results.record import SCHEMA, Sample

_TYPES = {
    "value": pa.float64(),
    "block": pa.int32(),
    "position": pa.int32(),
    "session": pa.int32(),
    "warmup": pa.bool_(),
    "at": pa.float64(),
    "resolution": pa.float64(),
}
COLUMNS = pa.schema(
    [(each.name, _TYPES.get(each.name, pa.string())) for each in fields(Sample)], metadata={"lab.schema": str(SCHEMA)}
)

COMPRESSION = {name: "zstd" if name in ("detail", "text") else "none" for name in COLUMNS.names}
"""Only what is free text: the other columns are short by their encoding, and to unpack those of a small run takes
longer than to read it.
"""


def write_parquet(path: Path, samples: Iterable[Sample]) -> None:
    """One column per field of Sample; ``detail`` as JSON text."""
    columns: dict[str, list[object]] = {name: [] for name in COLUMNS.names}
    for sample in samples:
        for name, values in columns.items():
            values.append(getattr(sample, name))
    columns["detail"] = [json.dumps(detail, ensure_ascii=False, sort_keys=True) for detail in columns["detail"]]
    pq.write_table(pa.table(columns, schema=COLUMNS), path, compression=COMPRESSION)
