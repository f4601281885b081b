"""Crossings in a table: every one of them on every backend, and why some have none."""

from __future__ import annotations

from lab.analysis.checks.crossings import NAMES, absences
from lab.analysis.quantities import format_ratio, format_value
from lab.reports.charts import compared, short
from lab.reports.material import Material
from lab.reports.tables import Cell, Row, Table, arm_columns
from lab.results.record import Arm

CAPTION = "Crossings: seconds for one operation, medians over blocks of each instance's median over batches"


def table(material: Material) -> Table:
    """A row per crossing, a column per backend: its median, how it compares with the baseline, its interval."""
    missing = absences(material.loaded.frame)
    rows = []
    for name in NAMES:
        cells = tuple(_cell(material, name, arm, missing.get((name, arm.label), "")) for arm in material.arms)
        if any(cell.text != "–" or cell.note for cell in cells):
            rows.append(Row(header=material.label(name), note=material.definition(name), cells=cells))
    return Table(caption=CAPTION, corner="crossing", columns=arm_columns(material), rows=tuple(rows))


def _cell(material: Material, name: str, arm: Arm, missing: str) -> Cell:
    value = material.value(name, arm.label)
    if value is None:
        tried = material.attempts(name, arm.label)
        return Cell(text="–", note=missing or (f"✗ {tried.failed} failed" if tried and tried.failed else ""))
    against = "" if arm.label == material.baseline else compared(material, name, arm).removesuffix("–")
    return Cell(text=format_value(value.median, value.unit), note=" · ".join(filter(None, (against, short(value)))))


def dearest(material: Material, name: str) -> tuple[str, str]:
    """How many times the baseline it takes at most, and where: ``38 ×``, ``vm``; "" where none is proven dearer."""
    found = [(material.ratio(name, arm.label), arm.label) for arm in material.arms if arm.label != material.baseline]
    dear = [(ratio.ratio, label) for ratio, label in found if ratio is not None and ratio.claim and ratio.ratio > 1]
    if not dear:
        return "", ""
    most, where = max(dear)
    return format_ratio(most), where
