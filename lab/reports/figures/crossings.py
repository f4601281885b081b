"""Crossings: how many times the bare process each takes on each backend."""

from __future__ import annotations

import math
from collections.abc import Sequence

from lab.analysis.checks.crossings import NAMES
from lab.analysis.quantities import format_ratio, format_value
from lab.reports.charts import Chart, Data, Panel, tip, whose
from lab.reports.material import Material, stamped
from lab.reports.words.crossings import dearest
from lab.results.record import Arm

HALVES = {"calls, memory, new processes": 13, "to another, over the network, into files": len(NAMES)}
"""The panels, and up to which crossing each goes."""

NARROWEST = (0.5, 2.0)
MOST_KEYS = 3
"""Of a legend's line."""


def chart(material: Material) -> Chart:
    """Two panels with one axis: a row per crossing, a mark per backend."""
    span, panels, start = _span(material), [], 0
    for title, end in HALVES.items():
        rows = [row for name in NAMES[start:end] if (row := _row(material, name)) is not None]
        start = end
        if rows:
            axis = f"× {material.baseline}"
            panels.append(
                Panel(
                    kind="marks", title=title, unit="1", axis=axis, span=span, rows=(*_legend(material), *rows),
                )
            )  # fmt: skip
    return Chart(
        title="What a boundary makes dear, and what it leaves free",
        how=f"times {material.baseline}, whose median stands below each name · 95 % intervals · filled: proven",
        panels=tuple(panels), columns=2,
        alt="Crossings. " + " ".join(filter(None, (_sentence(material, name) for name in NAMES))),
    )  # fmt: skip


def _others(material: Material) -> Sequence[Arm]:
    return [arm for arm in material.arms if arm.label != material.baseline]


def _legend(material: Material) -> list[Data]:
    """Which mark is whose, as rows of the panel's."""
    keys = [whose(arm) | {"text": arm.label} for arm in _others(material) if material.has("crossings.")]
    lines = [keys[at : at + MOST_KEYS] for at in range(0, len(keys), MOST_KEYS)]
    return [{"arm": "", "label": "", "keys": line} for line in lines]


def _row(material: Material, name: str) -> Data | None:
    base = material.value(name, material.baseline)
    points = [point for arm in _others(material) if (point := _point(material, name, arm)) is not None]
    if base is None or not points:
        return None
    most, where = dearest(material, name)
    below = format_value(base.median, base.unit)
    return {
        "arm": "", "label": material.label(name), "stamp": below, "points": points, "text": most, "note": where,
        "places": len(_others(material)),
    }  # fmt: skip


def _point(material: Material, name: str, arm: Arm) -> Data | None:
    ratio, value = material.ratio(name, arm.label), material.value(name, arm.label)
    if ratio is None or value is None or math.isnan(ratio.ratio):
        return None
    low, high = ratio.low, ratio.high
    words = f"{format_ratio(ratio.ratio)} {ratio.baseline} ({ratio.range}), paired: {ratio.judged.words}"
    return whose(arm) | {
        "value": ratio.ratio, "claim": ratio.claim, "place": list(_others(material)).index(arm),
        "low": None if math.isnan(low) else low, "high": None if math.isnan(high) else high,
        "tip": tip(value, arm, material.label(name), words),
    }  # fmt: skip


def _span(material: Material) -> tuple[float, float]:
    """From the least to the largest ratio, with a little air; intervals may run out of it."""
    found = [ratio.ratio for name in NAMES for arm in _others(material)
             if (ratio := material.ratio(name, arm.label)) is not None and ratio.ratio > 0]  # fmt: skip
    return min([NARROWEST[0], *(0.8 * each for each in found)]), max([NARROWEST[1], *(1.4 * each for each in found)])


def _sentence(material: Material, name: str) -> str:
    parts = []
    for arm in material.arms:
        value, ratio = material.value(name, arm.label), material.ratio(name, arm.label)
        if value is not None:
            times = "" if ratio is None or math.isnan(ratio.ratio) else f", {format_ratio(ratio.ratio)}"
            parts.append(f"{stamped(arm)} {format_value(value.median, value.unit)}{times}")
    return f"{material.label(name)}: {'; '.join(parts)}." if parts else ""
