"""A report's figures as data: what `lab.reports.drawing` paints, for paper and for the page.

Kinds of panels: ``bars`` (a value each, from zero), ``parts`` (stacked), ``shares`` (stretched to one length),
``dots`` (every observation), ``lines`` (one per backend or level, over named positions), ``counts`` and ``groups``
(how many answers of each class), ``effects`` (a ratio each, about 1), ``marks`` (a ratio of each backend in one row),
``forest`` (a ratio of each host, and of all together; ``thicket``: of many hosts, in rows too low for a name each).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from lab.analysis.data import TWIN
from lab.analysis.quantities import format_interval, format_ratio, format_value
from lab.reports.material import FEWEST_FOR_P95, Material, Value, stamp, stamped
from lab.results.record import Arm

Data = dict[str, Any]
"""A row, a part or a point: the keys that the painter of the panel's kind reads."""

WIDE = 50.0
"""Where values span more than that, the least would be a sliver on a linear axis: it starts logarithmic."""

SPANS = {"seconds": (1e-3, 100.0), "seconds/s": (1e-5, 1.0), "bytes": (1024.0**2, 4 * 1024.0**3)}
"""Where an axis goes that must not tell where its values are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """One pair of axes. ``unit`` is that of the values of its ``rows``, ``prefix`` the one that all of them are
    written in (how much of the unit it is, and its name) or None for the best of each; ``logarithmic`` how its axis
    starts, None where it can't be switched; ``span`` where it begins and ends, None for where the data do;
    ``legend`` pairs of a fill and its words. Of ``effects``, ``reach`` is how far from 1 the axis goes, and ``band``
    how far what counts as the same does.
    """

    kind: str
    title: str
    rows: tuple[Data, ...]
    unit: str = ""
    prefix: tuple[float, str] | None = None
    axis: str = ""
    logarithmic: bool | None = None
    span: tuple[float, float] | None = None
    ticks: tuple[str, ...] = ()
    legend: tuple[tuple[str, str], ...] = ()
    reach: float = 1.0
    band: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """A figure: ``how`` says how to read it, ``alt`` what it shows in words, ``columns`` how many panels stand side
    by side in a picture.
    """

    title: str
    how: str
    panels: tuple[Panel, ...]
    alt: str
    columns: int = 1


def is_wide(values: Iterable[float]) -> bool:
    """Whether values need a logarithmic axis to be seen all of them."""
    found = [value for value in values if value > 0]
    return bool(found) and max(found) > WIDE * min(found)


TO_BE_FILLED_IN = ("bars", "dots", "parts")
"""Kinds whose rows are lengths along an axis: of these one can guess how far each goes."""


def without_results(chart: Chart) -> Chart | None:
    """The chart with its axes and rows, and nothing in them; None when nothing would be left to fill in."""
    panels = []
    for panel in chart.panels:
        if panel.kind not in TO_BE_FILLED_IN or not panel.rows:
            continue
        rows = tuple(
            {key: row[key] for key in ("arm", "label", "twin")} | {"value": None, "text": "?", "note": ""}
            for row in {row["label"]: row for row in panel.rows}.values()  # one of each, whatever its state
        )
        span = SPANS.get(panel.unit, (1.0, 1e5))
        axis = panel.axis.partition(",")[0]  # what follows says how the values made it
        panels.append(replace(panel, kind="bars", rows=rows, logarithmic=True, span=span, prefix=None, axis=axis))
    if not panels:
        return None
    arms = ", ".join(str(row["label"]) for row in panels[0].rows)
    titles = "; ".join(panel.title for panel in panels)
    how = "How far will each go? The axes are logarithmic: equal distances are equal multiples."
    return replace(chart, panels=tuple(panels), how=how, alt=f"To be filled in, for {arms}: {titles}.")


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
    prefix: tuple[float, str] | None = None,
) -> Panel:
    """A bar per backend; with ``noted`` each says beside its value how it compares with the baseline."""
    rows: list[Data] = []
    for arm in material.arms:
        value = material.value(quantity, arm.label, state)
        if value is None:
            rows.append(whose(arm) | {"value": None, "text": "not measured", "note": ""})
            continue
        found = material.ratio(quantity, arm.label, state)
        words = ""
        if found is not None and not math.isnan(found.ratio):
            interval = "" if math.isnan(found.low) else f" ({found.range})"
            words = f"{format_ratio(found.ratio)} {found.baseline}{interval}, paired: {found.judged.words}"
        shown = value if prefix is None else in_prefix(value, prefix)
        text = format_value(shown.median, shown.unit)
        note = compared(material, quantity, arm, state) if noted else short(shown)
        rows.append(whose(arm) | mark(value, arm, title, words) | {"text": text, "note": note})
    found_values = [row["value"] for row in rows if row["value"] is not None]
    unit = next((value.unit for arm in material.arms if (value := material.value(quantity, arm.label, state))), "")
    return Panel(
        kind="bars", title=title, unit=unit, prefix=prefix, axis=axis, rows=tuple(rows),
        logarithmic=is_wide(found_values),
    )  # fmt: skip


def in_prefix(value: Value, prefix: tuple[float, str]) -> Value:
    """The same value in a unit of its own, which is written with no prefix but this."""
    factor, name = prefix
    return replace(
        value, median=value.median / factor, low=value.low / factor, high=value.high / factor, unit=name or "1"
    )


def compared(material: Material, quantity: str, arm: Arm, state: str = "") -> str:
    """How an arm compares with the baseline: ``78 ×``; ``≈`` where it is proven to be the same within the margin, a
    dash where nothing is proven. ``paired`` stands where the ratio within blocks does not fit the two medians.
    """
    if arm.label == material.baseline:
        return "baseline"
    found, above = material.ratio(quantity, arm.label, state), material.value(quantity, arm.label, state)
    below = material.value(quantity, material.baseline, state)
    if found is None or above is None or below is None or math.isnan(found.ratio):
        return ""
    if found.claim:
        return format_ratio(found.ratio) + ("" if found.fits(above, below) else ", paired")
    return "≈" if found.judged.is_proven else "–"


def sentence(material: Material, quantity: str) -> str:
    """The medians of all arms, for whoever can't see the bars."""
    found = [(arm, material.value(quantity, arm.label)) for arm in material.arms]
    told = [f"{stamped(arm)} {format_value(value.median, value.unit)}" for arm, value in found if value is not None]
    return f"{material.label(quantity)}: {', '.join(told)}." if told else ""


def short(value: Value) -> str:
    """Interval and n, as they stand beside a bar."""
    interval = format_interval(value.low, value.high, value.unit)
    return f"n = {value.n}" if interval == "–" else f"{interval} · n = {value.n}"


def sureness(value: Value) -> str:
    """The same, with what failed."""
    bad = [f"✗ {count} {word}" for count, word in ((value.failed, "failed"), (value.timeout, "timed out")) if count]
    return " · ".join([short(value), *bad])
