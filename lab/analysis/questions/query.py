"""SQL over all runs: their samples, where they lie, as tables of DuckDB's.

A run that ended is scanned as the ``samples.parquet`` that it has, column by column; only one that did not is read
from its lines. A query sees these tables and nothing else: no file, no network, no variable of this program
(duckdb.org, Securing DuckDB), so that one from elsewhere can be tried.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from pyarrow.fs import LocalFileSystem

from lab.analysis.many import READERS, has_current_columns, is_of_this_schema, named
from lab.errors import LabError, ResultsError, UsageError
from lab.results.codec import GARBLED
from lab.results.columns import COLUMNS
from lab.results.store import PARQUET, RUN, RunFolder

TEXT, NUMBER, YES = pa.string(), pa.float64(), pa.bool_()
RUNS: Mapping[str, tuple[pa.DataType, tuple[str, ...]]] = {
    "scenario": (TEXT, ("scenario",)),
    "started": (pa.timestamp("us", tz="UTC"), ("started",)),
    "ended_because": (TEXT, ("ended_because",)),
    "kind": (TEXT, ("settings", "kind")),
    "lab": (TEXT, ("versions", "lab")),
    "git": (TEXT, ("versions", "git")),
    "qemu": (TEXT, ("versions", "qemu")),
    "host": (TEXT, ("host", "identity")),
    "ground": (TEXT, ("host", "platform", "ground")),
    "distribution": (TEXT, ("host", "distribution")),
    "host_kernel": (TEXT, ("host", "kernel_release")),
    "cpu": (TEXT, ("host", "cpu", "model")),
    "cgroups": (TEXT, ("host", "cgroups", "mode")),
    "image": (TEXT, ("image", "digest")),
    "seed": (pa.int64(), ("seed",)),
}
"""The columns of ``runs`` behind ``run``, and where run.json has each."""

ARMS: Mapping[str, pa.DataType] = {
    "arm": TEXT, "backend": TEXT, "accelerator": TEXT, "kernel": TEXT, "nested": YES, "image": TEXT,
}  # fmt: skip
VIEW = """
CREATE VIEW samples AS
SELECT * REPLACE (CASE WHEN status = 'ok' THEN value END AS value) FROM
(SELECT * FROM columns_of_runs UNION ALL BY NAME SELECT * FROM lines_of_runs)
"""
CLOSED: dict[str, str | bool | int | float | list[str]] = dict.fromkeys(
    ("enable_external_access", "python_enable_replacements", "autoload_known_extensions"), False
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a query gave: the names of its columns, and its rows."""

    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]


def query(runs: Sequence[Path], sql: str, *, skipped: Callable[[LabError], None] | None = None) -> Answer:
    """The answer to ``sql`` over the tables ``samples``, ``runs`` and ``arms`` of these folders; see docs/queries.md.

    The value of an observation that failed is NULL. Raises UsageError for a query that DuckDB refuses, ResultsError
    for a folder that can't be read unless ``skipped`` is there to hear of it.
    """
    current, others, described = _looked_at(runs, skipped)
    with duckdb.connect(":memory:", config=CLOSED) as connection:
        connection.register("columns_of_runs", _columns(current))
        connection.register("lines_of_runs", _lines(others, skipped))
        connection.register("runs", _runs(described))
        connection.register("arms", _arms(described))
        connection.execute(VIEW)
        connection.execute("SET lock_configuration = true")
        try:
            found = connection.execute(sql)
            names = tuple(str(each[0]) for each in found.description or ())
            return Answer(columns=names, rows=tuple(map(tuple, found.fetchall())))
        except duckdb.Error as error:
            first, _, rest = str(error).strip().partition("\n")
            raise UsageError(
                f"the query can't be answered: {first}",
                hint="tables and columns: docs/queries.md",
                detail=rest.strip("\n"),
            ) from error
        except pa.ArrowException as error:
            raise ResultsError(f"a run's {PARQUET} is broken: {error}", hint="lab results ls") from error


def _looked_at(
    runs: Sequence[Path], skipped: Callable[[LabError], None] | None
) -> tuple[list[Path], list[Path], list[tuple[str, dict[str, Any]]]]:
    """Those with columns that hold all of their samples, those without, and what each says of itself."""
    current: list[Path] = []
    others: list[Path] = []
    described: list[tuple[str, dict[str, Any]]] = []
    with ThreadPoolExecutor(READERS) as pool:
        for path, found in zip(runs, pool.map(_look, runs), strict=True):
            if isinstance(found, LabError):
                if skipped is None:
                    raise found
                skipped(found)
                continue
            document, has_columns = found
            described.append((named(path), document))
            (current if has_columns else others).append(path)
    return current, others, described


def _look(path: Path) -> tuple[dict[str, Any], bool] | LabError:
    try:
        document = json.loads((path / RUN).read_bytes())
        arms = [arm["label"] for arm in document["arms"]]
        if not isinstance(document["scenario"], str) or not all(isinstance(arm, str) for arm in arms):
            raise TypeError("its scenario or an arm has no name")
    except (OSError, *GARBLED) as error:
        return ResultsError(f"{path / RUN} can't be read: {error}", hint="lab results ls")
    if not has_current_columns(path):
        return document, False
    try:
        there = pq.read_schema(path / PARQUET)
        return document, is_of_this_schema(there.metadata) and all(
            there.field(name).type == COLUMNS.field(name).type for name in COLUMNS.names
        )
    except (OSError, KeyError, pa.ArrowException):  # an older lab's, or broken: the lines are what was measured
        return document, False


def _columns(runs: Sequence[Path]) -> Any:
    """A dataset that is scanned as far as a query asks; the folder's name is the column ``run``."""
    schema = pa.schema([pa.field("run", TEXT), *COLUMNS]).remove_metadata()
    if not runs:
        return schema.empty_table()
    how, here = ds.ParquetFileFormat(), LocalFileSystem()
    parts = [how.make_fragment(str(path / PARQUET), here, ds.field("run") == named(path)) for path in runs]
    return ds.FileSystemDataset(parts, schema, how, here)


def _lines(runs: Sequence[Path], skipped: Callable[[LabError], None] | None) -> pa.Table:
    rows: dict[str, list[Any]] = {"run": [], **{name: [] for name in COLUMNS.names}}
    for path in runs:
        try:
            samples = list(RunFolder.open(path).samples())
        except LabError as error:
            if skipped is None:
                raise
            skipped(error)
            continue
        for sample in samples:
            rows["run"].append(named(path))
            for name in COLUMNS.names:
                rows[name].append(_whole(getattr(sample, name)))
    rows["detail"] = [json.dumps(dict(each), ensure_ascii=False, sort_keys=True) for each in rows["detail"]]
    return pa.table(rows, schema=pa.schema([pa.field("run", TEXT), *COLUMNS]).remove_metadata())


def _whole(value: Any) -> Any:
    """A text without halves of pairs of UTF-16, which JSON can hold and UTF-8 can't."""
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else value


def _runs(described: Sequence[tuple[str, dict[str, Any]]]) -> pa.Table:
    columns: dict[str, list[Any]] = {"run": [name for name, _ in described]}
    for name, (kind, place) in RUNS.items():
        found = [_at(document, place) for _, document in described]
        columns[name] = [_as(kind, each) for each in found]
    return pa.table(columns, schema=pa.schema([("run", TEXT), *((name, kind) for name, (kind, _) in RUNS.items())]))


def _arms(described: Sequence[tuple[str, dict[str, Any]]]) -> pa.Table:
    rows = list(_each_arm(described))
    return pa.Table.from_pylist(rows, schema=pa.schema([("run", TEXT), *ARMS.items()]))


def _each_arm(described: Sequence[tuple[str, dict[str, Any]]]) -> Iterator[dict[str, Any]]:
    for run, document in described:
        for arm in document["arms"]:
            told = {name: _as(kind, arm.get(name)) for name, kind in ARMS.items()}
            yield {"run": run, **told, "arm": arm["label"], "nested": bool(arm.get("nested"))}


def _at(document: Mapping[str, Any], place: Sequence[str]) -> Any:
    found: Any = document
    for name in place:
        found = found.get(name) if isinstance(found, dict) else None
    return found


def _as(kind: pa.DataType, value: Any) -> Any:
    """A value of that type; None for one that is none: a run.json may say anything."""
    if value is None:
        return None
    try:
        if pa.types.is_timestamp(kind):
            return pa.scalar(str(value)).cast(kind).as_py()
        return pa.scalar(str(value) if kind == TEXT else value, kind).as_py()
    except (pa.ArrowException, OverflowError, ValueError):
        return None
