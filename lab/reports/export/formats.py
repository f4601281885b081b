"""A run for other programs: CSV, Parquet, JSON with a schema, trace events, and PDF.

``report.json`` holds what the report says, as numbers: `report.schema.json` beside this module describes it. The
observations themselves are in ``samples.jsonl`` (always), ``samples.parquet`` (always) and ``samples.csv``.
"""

from __future__ import annotations

import json
import math
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd

from lab.analysis.quantities import is_key
from lab.analysis.readiness import until
from lab.errors import CommandError, ResultsError
from lab.host.command import run
from lab.reports.export.traceevents import trace
from lab.reports.material import Material
from lab.reports.page.render import put
from lab.results.columns import write_parquet
from lab.results.store import RunFolder

SCHEMA_VERSION = 2
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
PDF_SECONDS = 120.0
FIGURE_COLUMNS = ["quantity", "state", "arm", "block", "value", "unit", "status", "accelerator", "text"]


def figure_data(material: Material, needs: str) -> str:
    """The observations behind a figure, as CSV: quantities that start with ``needs``; without it all judged ones."""
    frame = material.observed
    names = frame["quantity"].astype(str)
    chosen = (
        names.str.startswith(needs) if needs else names.map(is_key).astype(bool) | names.str.startswith("isolation.")
    )
    return str(frame.loc[chosen, FIGURE_COLUMNS].to_csv(index=False))


def csv(material: Material, folder: Path) -> list[Path]:
    """samples.csv (every observation, warm-ups marked), summary.csv, ratios.csv and, with factors, effects.csv.

    Each has a column ``name`` beside ``quantity``: what it is called in this run, by what was waited for in it.
    """
    frame = material.loaded.frame.assign(detail=material.loaded.frame["detail"].map(_compact))
    tables = {"samples": frame, "summary": material.summary, "ratios": material.ratios}
    if not material.effects.empty:
        tables["effects"] = material.effects
    named = {name: _named(material, table) for name, table in tables.items()}
    return [put(folder / f"{name}.csv", table.to_csv(index=False)) for name, table in named.items()]


def parquet(_: object, folder: Path) -> list[Path]:
    """samples.parquet, again: a run that was interrupted has none."""
    target = folder / "samples.parquet"
    write_parquet(target, RunFolder.open(folder).samples())
    return [target]


def report_json(material: Material, folder: Path) -> list[Path]:
    """report.json: summary, ratios, findings, answers and provenance; a number that is none is null."""
    return [put(folder / "report.json", json.dumps(document(material), ensure_ascii=False, indent=1) + "\n")]


def document(material: Material) -> dict[str, Any]:
    """What ``report.json`` holds; see `schema`."""
    loaded = material.loaded
    answers = loaded.answers[["quantity", "arm", "text", "status"]]
    return {
        "schema": SCHEMA_VERSION,
        "run": loaded.run.name,
        "scenario": loaded.run.scenario,
        "title": loaded.run.title,
        "started": loaded.run.started,
        "ended": loaded.run.ended,
        "ended_because": loaded.run.ended_because,
        "blocks": loaded.blocks,
        "seed": loaded.run.seed,
        "baseline": loaded.baseline,
        "arms": [plain(asdict(arm)) for arm in loaded.all_arms],
        "until": until(loaded.run).value,
        "summary": _records(_named(material, material.summary)),
        "ratios": _records(_named(material, material.ratios)),
        "effects": _records(_named(material, material.effects)),
        "findings": [plain(asdict(finding)) for finding in material.findings],
        "answers": [
            {"probe": row["quantity"].removeprefix("isolation."), **{k: row[k] for k in ("arm", "text", "status")}}
            for row in _records(answers)
        ],
        "image": plain(loaded.run.image),
        "host": plain(loaded.run.host),
        "versions": plain(loaded.run.versions),
        "limits": plain(loaded.run.limits),
        "settings": plain(loaded.run.settings),
        "parity": plain(loaded.run.parity),
    }


def pdf(_: object, folder: Path) -> list[Path]:
    """report.pdf, printed from report.html by a browser without a window. Raises ResultsError when there is none."""
    browser = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if browser is None:
        raise ResultsError("a PDF is printed by a browser, and none is installed", hint="apt-get install chromium")
    page, target = folder / "report.html", folder / "report.pdf"
    with tempfile.TemporaryDirectory() as profile:
        argv = [
            browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
            "--disable-background-networking", "--disable-component-update", "--disable-sync",
            f"--user-data-dir={profile}", "--no-pdf-header-footer", f"--print-to-pdf={target.resolve()}",
            page.resolve().as_uri(),
        ]  # fmt: skip
        run(argv, timeout_seconds=PDF_SECONDS, hint=f"{browser} --headless --print-to-pdf must work here")
    if not target.is_file():
        raise CommandError(f"{browser} wrote no {target.name}", hint="another version of it may")
    return [target]


EXPORTS: Mapping[str, Callable[[Material, Path], list[Path]]] = {
    "csv": csv,
    "parquet": parquet,
    "json": report_json,
    "trace": trace,
    "pdf": pdf,
}
"""Every format besides the report's own two, by its name on the command line; pdf needs the html."""


def _named(material: Material, table: pd.DataFrame) -> pd.DataFrame:
    """``table`` with the names of its quantities for people, as its last column."""
    return table.assign(name=[material.label(str(quantity)) for quantity in table["quantity"]])


def _records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(key): plain(value) for key, value in row.items()} for row in frame.to_dict("records")]


def plain(value: Any) -> Any:
    """What JSON knows: NaN and infinities become null, keys text."""
    if isinstance(value, Mapping):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    if hasattr(value, "item"):  # numpy's scalars
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if value is None or isinstance(value, bool | int | float) else str(value)


def _compact(detail: object) -> str:
    return json.dumps(detail, ensure_ascii=False, sort_keys=True)
