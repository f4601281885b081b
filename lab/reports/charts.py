"""A report's figures as data, for the script that draws them in a browser so that one can ask a mark for its numbers.

The pictures come first: they are what is printed, and what a reader without scripts sees. The script in
``templates/charts.js`` replaces each by a chart of the same values, with the words that are prepared here, and knows
six kinds of panels: ``bars`` (a value each, from zero), ``parts`` (stacked), ``dots`` (every observation), ``lines``
(one per backend or level, over named positions), ``squares`` (an answer each), ``effects`` (a ratio each, about 1).
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lab.analysis.data import TWIN
from lab.analysis.quantities import format_interval, format_ratio, format_value
from lab.model import Accelerator
from lab.reports import style
from lab.reports.material import FEWEST_FOR_P95, Material, Value, stamp
from lab.results.record import Arm

Data = dict[str, Any]
"""What JSON can hold, with the keys that ``charts.js`` reads."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """One pair of axes. ``unit`` is that of the values of its ``rows``; ``logarithmic`` how its axis starts, None
    where it can't be switched; ``legend`` pairs of a fill and its words. Of ``effects``, ``reach`` is how far from 1
    the axis goes, and ``band`` how far what counts as the same does.
    """

    kind: str
    title: str
    rows: tuple[Data, ...]
    unit: str = ""
    axis: str = ""
    logarithmic: bool | None = None
    ticks: tuple[str, ...] = ()
    legend: tuple[tuple[str, str], ...] = ()
    reach: float = 1.0
    band: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """A figure for the script: ``how`` says how to read it."""

    title: str
    how: str
    panels: tuple[Panel, ...]


def embed(arms: Sequence[Arm], charts: dict[str, Chart]) -> str:
    """All charts of a page as JSON that may stand inside a ``script`` element."""
    document = {
        "arms": [
            {
                "label": arm.label,
                "stamp": stamp(arm),
                "fill": style.colour(arm),
                "ink": style.ink(arm),
                "marker": style.marker(arm),
                "striped": arm.accelerator is Accelerator.TCG,
            }
            for arm in arms
        ],
        "charts": {
            name: {"title": chart.title, "how": chart.how, "panels": [_panel(panel) for panel in chart.panels]}
            for name, chart in charts.items()
        },
    }
    text = json.dumps(_adaptive(document), ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c")


def _adaptive(node: Any) -> Any:
    """``node`` with all colours in it fit for light and dark pages."""
    match node:
        case dict():
            return {key: _adaptive(value) for key, value in node.items()}
        case list() | tuple():
            return [_adaptive(value) for value in node]
        case str():
            return style.adaptive(node)
    return node


def _panel(panel: Panel) -> Data:
    return {
        "kind": panel.kind, "title": panel.title, "unit": panel.unit, "axis": panel.axis,
        "logarithmic": panel.logarithmic, "ticks": panel.ticks, "legend": panel.legend, "rows": panel.rows,
    } | ({"reach": panel.reach, "band": panel.band} if panel.kind == "effects" else {})  # fmt: skip


def whose(arm: Arm) -> Data:
    """Whom a row belongs to: an A/A twin is shown and hidden together with the arm that it repeats."""
    return {"arm": arm.label.removesuffix(TWIN), "label": arm.label, "twin": arm.label.endswith(TWIN)}


def mark(value: Value, arm: Arm, name: str, *more: str) -> Data:
    """A median: where it stands, and what it answers when asked. ``more`` are further lines of the answer."""
    ends = [None if math.isnan(end) else end for end in (value.low, value.high)]
    return {"value": value.median, "low": ends[0], "high": ends[1], "tip": tip(value, arm, name, *more)}


def tip(value: Value, arm: Arm, name: str, *more: str) -> list[str]:
    """Value and unit, interval, n, accelerator, and what became of the attempts that failed."""
    interval = format_interval(value.low, value.high, value.unit)
    lines = [f"{arm.label} · {stamp(arm)}", f"{name}: {format_value(value.median, value.unit)}"]
    lines.append("too few for an interval" if interval == "–" else f"95 % interval of the median: {interval}")
    lines.append(f"n = {value.n}")
    if value.n >= FEWEST_FOR_P95:
        lines[-1] += f", p95 {format_value(value.p95, value.unit)}"
    lines += [f"{count} {word}" for count, word in ((value.failed, "failed"), (value.timeout, "timed out")) if count]
    if value.resolution:
        lines.append(f"±{format_value(value.resolution, value.unit, 2)} by polling")
    return [*lines, *(line for line in more if line)]


def bars(
    material: Material,
    quantity: str,
    title: str,
    state: str = "",
    *,
    axis: str = "",
    noted: bool = False,
    arms: Sequence[Arm] = (),
) -> Panel:
    """A bar per backend; with ``noted`` each says below its value how it compares with the baseline."""
    from lab.reports.figures.bars import compared

    rows: list[Data] = []
    for arm in arms or material.arms:
        value = material.value(quantity, arm.label, state)
        if value is None:
            rows.append(whose(arm) | {"value": None})
            continue
        found = material.ratio(quantity, arm.label, state)
        words = ""
        if found is not None and not math.isnan(found.ratio):
            interval = "" if math.isnan(found.low) else f" ({found.range})"
            words = f"{format_ratio(found.ratio)} {found.baseline}{interval}, paired: {found.judged.words}"
        note = compared(material, quantity, arm, state) if noted else short(value)
        rows.append(
            whose(arm)
            | mark(value, arm, title, words)
            | {"text": format_value(value.median, value.unit), "note": note}
        )
    unit = next((value.unit for arm in material.arms if (value := material.value(quantity, arm.label, state))), "")
    return Panel(kind="bars", title=title, unit=unit, axis=axis, rows=tuple(rows), logarithmic=False)


def short(value: Value) -> str:
    """Interval and n, as they stand beside a bar."""
    interval = format_interval(value.low, value.high, value.unit)
    return f"n = {value.n}" if interval == "–" else f"{interval} · n = {value.n}"
