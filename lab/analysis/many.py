"""Many runs at once: a million samples of ten thousand runs as columns, never as a Python object each.

A run that ended has its samples as ``samples.parquet``; one that did not, or whose file is older than its samples, is
read from ``samples.jsonl``. Only the columns and quantities asked for are decoded. To plot or fit what these return
takes a table of one row per run, arm and state.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lab.analysis.readiness import until_of
from lab.errors import LabError, ResultsError
from lab.results.columns import COLUMNS
from lab.results.record import SCHEMA, Status
from lab.results.store import PARQUET, PROGRESS, RUN, SAMPLES, RunFolder

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Counts = NDArray[np.int64]

KEPT = ("quantity", "value", "unit", "backend", "arm", "block", "status", "state", "warmup", "accelerator")

READABLE = (*KEPT, "session", "resolution")
"""What can be asked for; the rest is of an instance or a text."""

_DICTIONARY = pa.dictionary(pa.int32(), pa.string())
READERS = 2
"""Threads that open files: decoding is native code, which lets go of the interpreter. More of them wait for it."""

BATCH = 128
"""Runs whose tables a reader joins before it hands them over: small ones have a high price each."""

SMALL_FILE = 1 << 20
"""In bytes."""

TEXTS = [name for name in KEPT if COLUMNS.field(name).type == pa.string()]
SUMMARISED = ("quantity", "value", "unit", "arm", "status", "state", "warmup")
TREND = (
    "run",
    "scenario",
    "until",
    "started",
    "arm",
    "backend",
    "accelerator",
    "state",
    "unit",
    "n",
    "failed",
    "median",
    "p95",
)


def folders(root: Path) -> list[Path]:
    """Every run folder directly below ``root``, by name, which begins with the time unless the user named it."""
    try:
        return sorted(path.parent for path in root.glob(f"*/{RUN}"))
    except OSError as error:
        raise ResultsError(f"{root} can't be read: {error.strerror}", hint="check its permissions") from error


def named(run: Path) -> str:
    """What a run is called in a column: its folder's name, which need not be UTF-8, as text that is."""
    return as_text(run.name)


def as_text(name: str | Path) -> str:
    """A file's name, which need not be UTF-8, as text that is."""
    return str(name).encode("utf-8", "backslashreplace").decode()


def load_many(
    runs: Iterable[Path],
    *,
    quantities: Sequence[str] = (),
    columns: Sequence[str] = KEPT,
    skipped: Callable[[LabError], None] | None = None,
) -> pd.DataFrame:
    """The observations of many runs, warm-ups and failures included: a row each, a column ``run`` and ``columns``.

    Texts are categories. ``columns`` are some of READABLE, quantity, value and status among them. ``quantities``
    names the only ones wanted; () means all. ``run`` is the folder's name; its path where two share theirs, as runs
    of different hosts may. A folder that can't be read raises ResultsError, unless ``skipped`` is there to hear of
    it.
    """
    paths, wanted = list(runs), pa.array(quantities, pa.string())
    encoded = [name for name in TEXTS if not (len(wanted) and name == "quantity")]  # what is looked at stays text

    def read(start: int) -> tuple[pa.Table | None, list[LabError]]:
        """The runs of one batch as one table, and what was wrong with the others."""
        tables: list[pa.Table] = []
        numbers: list[int] = []
        errors: list[LabError] = []
        for number, path in enumerate(paths[start : start + BATCH], start):
            try:
                tables.append(_read(str(path), list(columns), encoded))
                numbers.append(number)
            except LabError as error:
                errors.append(error)
        return (_join(tables, numbers, wanted) if tables else None), errors

    parts: list[pa.Table] = []
    with ThreadPoolExecutor(READERS) as pool:
        for table, errors in pool.map(read, range(0, len(paths), BATCH)):
            for error in errors:
                if skipped is None:
                    raise error
                skipped(error)
            if table is not None:
                parts.append(table)
    if not parts:
        return pd.DataFrame(columns=["run", *columns])
    frame: pd.DataFrame = pa.concat_tables(parts).unify_dictionaries().to_pandas(self_destruct=True)
    frame["run"] = pd.Categorical.from_codes(frame["run"].to_numpy(), pd.Index(called(paths)))
    # a failure never counts as a fast success, whatever value came with it
    frame["value"] = frame["value"].where(frame["status"] == Status.OK)
    return frame[["run", *columns]]


def called(runs: Sequence[Path]) -> list[str]:
    """What each of these runs is called beside the others: its folder's name, or its path where two share theirs."""
    often = Counter(map(named, runs))
    return [named(path) if often[named(path)] == 1 else as_text(path) for path in runs]


def _join(tables: Sequence[pa.Table], numbers: Sequence[int], wanted: pa.Array) -> pa.Table:
    """Runs below each other, the ``wanted`` quantities only unless that is empty, with each run's number."""
    run = np.repeat(np.array(numbers, np.int32), [len(table) for table in tables])
    joined = pa.concat_tables(tables).append_column("run", pa.array(run))
    if len(wanted):  # of all at once: it costs a run as much as to read half of its columns
        joined = joined.filter(pc.is_in(joined["quantity"], wanted))
        place = joined.schema.get_field_index("quantity")
        joined = joined.set_column(place, "quantity", joined["quantity"].dictionary_encode())
    return joined.unify_dictionaries().combine_chunks()


def trend(runs: Sequence[Path], quantity: str, *, skipped: Callable[[LabError], None] | None = None) -> pd.DataFrame:
    """One quantity over the runs: a row per run, arm and state, with the columns of TREND, by the time of the run.

    ``n`` counts the good observations, ``failed`` the others; warm-ups count as neither. ``until`` says what the
    instances of the run were waited for: times that waited otherwise are of another thing. ``started`` is a UTC
    timestamp. Raises ResultsError when no run has that quantity.
    """
    frame = load_many(runs, quantities=(quantity,), columns=SUMMARISED, skipped=skipped)
    frame = frame[~frame["warmup"].astype(bool)]
    if frame.empty:
        raise ResultsError(f"no run has an observation of {quantity}", hint="lab results show RUN names what one has")
    keys = ["run", "arm", "state", "unit"]
    grouped = frame.groupby(keys, observed=True, sort=False)
    frame = frame.assign(group=grouped.ngroup()).sort_values(["group", "value"], ignore_index=True)  # NaN goes last
    sizes = frame.groupby("group", sort=True)["value"].agg(["size", "count"])
    starts = (sizes["size"].cumsum() - sizes["size"]).to_numpy()
    table = frame.loc[starts, keys].reset_index(drop=True)
    n = sizes["count"].to_numpy()
    table["n"], table["failed"] = n, sizes["size"].to_numpy() - n
    for name, share in (("median", 0.5), ("p95", 0.95)):
        table[name] = _quantiles(frame["value"].to_numpy(), starts, n, share)
    known = set(table["run"])
    about = {named(path): _about(path) for path in runs if named(path) in known}
    table["scenario"] = [about[name].scenario for name in table["run"]]
    table["until"] = [about[name].until for name in table["run"]]
    table["started"] = pd.to_datetime([about[name].started for name in table["run"]], utc=True)
    arms = [about[run].arms.get(arm, (arm, "")) for run, arm in zip(table["run"], table["arm"], strict=True)]
    table["backend"], table["accelerator"] = [arm[0] for arm in arms], [arm[1] for arm in arms]
    plain = {name: table[name].astype(str) for name in keys}
    return table.assign(**plain).sort_values(["started", "run", "arm", "state"], ignore_index=True)[list(TREND)]


def _quantiles(values: Floats, starts: Counts, counts: Counts, share: float) -> Floats:
    """Of each group of sorted values, interpolated as numpy.quantile does; NaN for a group without any."""
    at = starts + np.maximum(counts - 1, 0) * share
    below = np.floor(at).astype(np.int64)
    above = np.minimum(below + 1, starts + np.maximum(counts - 1, 0))
    found: Floats = values[below] + (at - below) * (values[above] - values[below])
    return found


def _read(path: str, columns: list[str], encoded: list[str]) -> pa.Table:
    """Of one run, some of READABLE, the texts named in ``encoded`` as dictionaries.

    What is done ten thousand times keeps to plain paths. Raises ResultsError when it is broken or no run.
    """
    try:
        size = _size_if_current(path)
        if size is None:
            return _of_lines(path, columns, encoded)
        file = pq.ParquetFile(_source(f"{path}/{PARQUET}", size), read_dictionary=encoded)
        if not is_of_this_schema(file.metadata.metadata):
            return _of_lines(path, columns, encoded)
        table = file.read(columns=columns, use_threads=False)
        return table.select(columns).replace_schema_metadata()
    except (OSError, pa.ArrowException, KeyError) as error:
        what = str(error).splitlines()[0]
        raise ResultsError(
            f"{path}/{PARQUET} can't be read: {what}", hint=f"lab report {path} --format parquet writes it again"
        ) from error


def _of_lines(path: str, columns: list[str], encoded: list[str]) -> pa.Table:
    plain = _from_lines(Path(path)).select(columns)
    return plain.cast(pa.schema([_field(name, encoded) for name in columns]))


def is_of_this_schema(metadata: Mapping[bytes, bytes] | None) -> bool:
    """Whether a Parquet file's values mean what they do today, by its metadata: see `lab.results.upgrade`."""
    return (metadata or {}).get(b"lab.schema") == str(SCHEMA).encode()


def _source(file: str, size: int) -> pa.NativeFile:
    """A small file as a whole: to map its pages costs more than to copy them. Of a large one what is asked for."""
    if size > SMALL_FILE:
        return pa.memory_map(file)
    with open(file, "rb") as opened:
        return pa.BufferReader(opened.read())


def has_current_columns(run: Path) -> bool:
    """Whether a run's Parquet file is there and holds all that its lines do."""
    return _size_if_current(str(run)) is not None


def _size_if_current(path: str) -> int | None:
    """The size of the columns in bytes, if they are there and hold all that the lines do: both files are appended to
    while a run lasts.
    """
    try:
        found = os.stat(f"{path}/{PARQUET}")
    except OSError:
        return None
    for name in (SAMPLES, PROGRESS):
        try:
            if os.stat(f"{path}/{name}").st_mtime_ns > found.st_mtime_ns:
                return None
        except OSError:
            continue
    return found.st_size


def _field(name: str, encoded: list[str]) -> pa.Field:
    return pa.field(name, _DICTIONARY if name in encoded else COLUMNS.field(name).type)


def _from_lines(path: Path) -> pa.Table:
    rows = [{name: getattr(sample, name) for name in READABLE} for sample in RunFolder.open(path).samples()]
    return pa.Table.from_pylist(rows, schema=pa.schema([COLUMNS.field(name) for name in READABLE]))


@dataclass(frozen=True, slots=True, kw_only=True)
class _About:
    """Of a run's provenance what a trend needs; backend and accelerator by arm."""

    scenario: str
    until: str
    started: datetime
    arms: dict[str, tuple[str, str]]


def _about(path: Path) -> _About:
    try:
        raw: dict[str, Any] = json.loads((path / RUN).read_text(encoding="utf-8"))
        started = datetime.fromisoformat(str(raw["started"]))
        return _About(
            scenario=str(raw["scenario"]),
            until=str(until_of(raw.get("settings", {}))),
            started=started if started.tzinfo else started.replace(tzinfo=UTC),
            arms={str(arm["label"]): (str(arm["backend"]), str(arm["accelerator"])) for arm in raw["arms"]},
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ResultsError(f"{path / RUN} can't be read: {error}", hint="lab results ls") from error
