"""Which report a run folder gets: that of `lab compare`, or the page of the study that measured it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lab.analysis.loaded import Loaded, load
from lab.errors import UsageError
from lab.reports import density, exports, ladder, noisy, surface, writer
from lab.reports.pages import put, writing
from lab.results.store import RunFolder

STUDIES: Mapping[str, Callable[[Loaded], list[Path]]] = {
    density.KIND: density.write,
    ladder.KIND: ladder.write,
    noisy.KIND: noisy.write,
    surface.KIND: surface.write,
}
"""What writes a study's page, by the kind of run."""

ALWAYS = ("html", "md", "csv")
"""What a study's page consists of, whatever is asked for."""


def study_of(settings: Mapping[str, Any]) -> str | None:
    """Which study has these settings; None for a comparison."""
    kind = str(settings.get("kind", ""))
    return kind if kind in STUDIES else None


def write_any(folder: Path, formats: Sequence[str] = (), *, hidden: bool = False) -> list[Path]:
    """Write a run's report from its folder alone; ``formats`` are those of `writer.write`. Returns what was written.

    Raises UsageError for a format that this report does not have.
    """
    kind = study_of(RunFolder.open(folder).run.settings)
    if kind is None:
        if hidden:
            return writer.write_hidden(folder, formats or ["html"])
        return writer.write(folder, formats or writer.FORMATS)
    if hidden:
        raise UsageError(f"{folder.name} is a study with a page of its own", hint="--hide is for lab compare's runs")
    more = {"json": _json, "pdf": lambda folder: exports.pdf(None, folder), "parquet": _parquet}
    unknown = sorted(set(formats) - {*ALWAYS, *more})
    if unknown:
        raise UsageError(
            f"{folder.name} is a study, which has no format {', '.join(unknown)}",
            hint=f"it has {', '.join((*ALWAYS, *more))}",
        )
    with writing(folder):
        written = STUDIES[kind](load(folder))
        for name, export in more.items():
            if name in formats:
                written += export(folder)
    return written


def _json(folder: Path) -> list[Path]:
    from lab.reports.asjson import text

    return [put(folder / "report.json", text(folder))]


def _parquet(folder: Path) -> list[Path]:
    return exports.parquet(None, folder)
