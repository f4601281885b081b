"""Right after the start: how long an answer takes, by its number, until the copy is warm."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from lab.analysis.debt import LATER, PLACES
from lab.analysis.quantities import format_value
from lab.reports import style
from lab.reports.charts import Chart, Data, Panel, mark, whose
from lab.reports.material import Material, Value, stamped
from lab.reports.words.debt import arms
from lab.results.record import Arm

MARKERS = ("X", "P", "v", "*", "p", "8")
"""Of arms that are at another level than their backend's reference: these have its colour."""
MOST = 8


def chart(material: Material) -> Chart:
    """A line per arm over the numbers of its answers; its last point are those of the same copies later."""
    shown = _shown(material)
    points = {arm.label: _points(material, arm) for arm in shown}
    rows = tuple(_row(material, arm, points[arm.label]) for arm in shown if points[arm.label])
    return Chart(
        title="What is still owed after the first answer",
        how="medians over copies with 95 % intervals · of several answers each copy's median · lower is better",
        panels=(
            Panel(
                kind="lines", title="time of one answer", unit="seconds", rows=rows,
                ticks=(*PLACES, LATER), axis="number of the answer after the first correct one · logarithmic",
            ),
        ),
        alt="Time of an answer by its number. "
        + " ".join(_sentence(arm, points[arm.label]) for arm in shown),
    )  # fmt: skip


def data(material: Material) -> str:
    """The points of the figure, as CSV."""
    return str(material.by_request.to_csv(index=False))


def _shown(material: Material) -> list[Arm]:
    """Every arm, or, of many, those that differ from their backend's reference in one factor at the most."""
    found = arms(material)
    if len(found) <= MOST:
        return found
    first = {arm.backend: arm.factors for arm in material.arms}
    return [
        arm
        for arm in found
        if sum(level != first.get(arm.backend, {}).get(name) for name, level in arm.factors.items()) <= 1
    ]


def _row(material: Material, arm: Arm, points: list[Data]) -> Data:
    row = whose(arm) | {"points": points, "text": f"{arm.label} {format_value(points[-1]['value'], 'seconds')}"}
    if arm.is_reference:
        return row
    levels = [each.label for each in material.loaded.arms if each.backend == arm.backend and not each.is_reference]
    marker = MARKERS[levels.index(arm.label) % len(MARKERS)]
    look = {"fill": style.ink(arm), "ink": style.ink(arm), "marker": marker, "line": ":"}
    return row | {"look": look}


def _points(material: Material, arm: Arm) -> list[Data]:
    frame = material.by_request
    places = {name: place for place, name in enumerate((*PLACES, LATER))}
    return [
        {"at": places[row["requests"]]} | mark(_value(row), arm, _called(row["requests"]))
        for row in frame[frame["arm"] == arm.label].to_dict("records")
    ]


def _called(requests: str) -> str:
    return "an answer later" if requests == LATER else f"answer {requests}"


def _value(row: Mapping[Any, Any]) -> Value:
    return Value(
        median=row["median"], low=row["low"], high=row["high"], p95=math.nan, unit="seconds", n=row["n"], failed=0,
        timeout=0, resolution=0.0,
    )  # fmt: skip


def _sentence(arm: Arm, points: list[Data]) -> str:
    if not points:
        return f"{stamped(arm)}: not measured."
    names = (*PLACES, LATER)
    times = ", ".join(f"{names[point['at']]}: {format_value(point['value'], 'seconds')}" for point in points)
    return f"{stamped(arm)}: {times}."
