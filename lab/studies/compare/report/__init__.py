"""The report of a comparison, rebuilt from a run folder alone: anywhere, without root, hypervisor or network."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lab.analysis.loaded import Loaded
from lab.reports.export import formats
from lab.reports.material import Material
from lab.studies.compare.report import terminal, writer
from lab.studies.reporting import Report


class ComparisonReport(Report):
    """What each boundary costs and stops, beside the baseline."""

    def write(self, folder: Path, formats: Sequence[str] = (), *, hidden: bool = False) -> list[Path]:
        if hidden:
            return writer.write_hidden(folder, formats or ["html"])
        return writer.write(folder, formats or writer.FORMATS)

    def page(self, folder: Path) -> str:
        from lab.reports.figures import charts
        from lab.studies.compare.report.document import html

        material = Material.read(folder)
        return html(material, list(charts(material)))

    def pages(self, loaded: Loaded) -> list[Path]:
        return writer.write(loaded.path)

    def said(self, loaded: Loaded) -> dict[str, Any]:
        return formats.document(Material(loaded))

    def as_json(self, folder: Path) -> dict[str, Any]:
        return {"folder": str(folder), "kind": "compare"} | formats.document(Material.read(folder))

    def show(self, loaded: Loaded, page: Path) -> None:
        terminal.show(loaded.path)

    def show_again(self, folder: Path) -> None:
        terminal.show(folder)


REPORT = ComparisonReport()
