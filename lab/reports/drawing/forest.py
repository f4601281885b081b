"""A forest plot: a row per host, then all of them together, then the next one; ratios on a logarithmic axis."""

from __future__ import annotations

import math
from collections.abc import Sequence

from lab.reports import style
from lab.reports.charts import Data
from lab.reports.drawing.rows import beside, names
from lab.reports.drawing.scales import logarithmic, name_axis
from lab.reports.drawing.sheet import Sheet

NARROWEST = 1.1
"""However little the hosts differ, an axis is at least so long: noise shall not look like a landslide."""
ROOM = 1.2
"""An interval may go so far beyond all estimates, in times of their span (of logarithms), before it is cut."""
FEW = 2.0
"""Up to so long an axis has round numbers that are equally far apart."""


def forest(sheet: Sheet) -> None:
    """Names on the left, numbers on the right. Rows are of a ``role``: ``host`` (a point as large as its weight, and
    its interval), ``pooled`` (a diamond from end to end), ``next`` (a dashed interval) or ``space``.
    """
    _axis(sheet)
    names(sheet)
    pooled = next((row for row in sheet.rows if row["role"] == "pooled"), None)
    if pooled is not None:
        bottom = sheet.height - 0.2 * sheet.base
        sheet.axes.plot(
            [pooled["value"]] * 2, [0, bottom], color=style.QUIET, linewidth=1.0, linestyle=(0, (2, 3)), zorder=1
        )
    for index, row in enumerate(sheet.rows):
        if row["role"] == "space":
            continue
        middle, key = sheet.top(index) + sheet.pitch / 2, sheet.mark(row, index, row["tip"])
        if row["role"] == "pooled":
            above = sheet.top(index) - (3 * sheet.pitch if sheet.pitch < sheet.base else 0)
            sheet.axes.plot([sheet.low, sheet.high], [above, above], color=style.RULE, linewidth=1.0, zorder=0)
            _diamond(sheet, key, row, middle)
        elif row["role"] == "next":
            _interval(sheet, key, row, middle, line=(0, (3, 2)), width=0.2)
        else:
            _host(sheet, key, row, middle)
        if row["text"]:
            beside(sheet, key, index, row["text"], row["note"], weight="normal" if row["role"] == "host" else "bold")
    name_axis(sheet)


def _axis(sheet: Sheet) -> None:
    from matplotlib.ticker import FixedLocator, NullLocator

    axes = sheet.axes
    sheet.low, sheet.high = limits(sheet.rows)
    axes.set_xscale("log")
    axes.set_xlim(sheet.low, sheet.high)
    if sheet.low <= 1 <= sheet.high:
        axes.plot([1, 1], [0, sheet.height], color=style.INK, linewidth=1.2, zorder=1)
    most = max(3, int(sheet.width / (4.5 * sheet.base)))
    axes.xaxis.set_major_locator(FixedLocator(_ticks(sheet.low, sheet.high, most)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.6g}")
    axes.tick_params(axis="x", length=0, labelsize=0.82 * sheet.base)


def limits(rows: Sequence[Data]) -> tuple[float, float]:
    """Where the axis begins and ends: all estimates are on it, and 1 where it is not far; intervals as far as `ROOM`
    allows.
    """
    values = [math.log(row["value"]) for row in rows if row.get("value")]
    least, most = min(values), max(values)
    span = max(most - least, math.log(NARROWEST))
    ends = [math.log(end) for row in rows for end in (row.get("low"), row.get("high")) if end and math.isfinite(end)]
    low = max(min([least, *ends]), least - ROOM * span)
    high = min(max([most, *ends]), most + ROOM * span)
    if low - ROOM * span <= 0 <= high + ROOM * span:
        low, high = min(low, 0.0), max(high, 0.0)
    edge = 0.04 * max(high - low, math.log(NARROWEST))
    return math.exp(low - edge), math.exp(high + edge)


def _ticks(low: float, high: float, most: int) -> list[float]:
    if high / low > FEW:
        found = logarithmic(low, high, most)
        if len(found) >= 3 or high / low > 100:
            return found
    rough = (high - low) / most
    decade = 10.0 ** math.floor(math.log10(rough))
    step = next(each for each in (1, 2, 5, 10) if each * decade >= rough * 0.999) * decade
    return [number * step for number in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _host(sheet: Sheet, key: str, row: Data, middle: float) -> None:
    look = sheet.look(row)
    _interval(sheet, key, row, middle, line="-", width=0.13)
    size = (0.28 + 0.5 * math.sqrt(row["weight"])) * min(sheet.base, 1.6 * sheet.pitch)
    (point,) = sheet.axes.plot(
        row["value"], middle, marker="D" if row["disagrees"] else "s", markersize=size, linestyle="none", zorder=3,
        markerfacecolor=style.PAPER if row["disagrees"] else look.fill, markeredgecolor=look.ink,
        markeredgewidth=2.0 if row["disagrees"] else 1.0,
    )  # fmt: skip
    sheet.tag(point, key, part="shape")


def _interval(sheet: Sheet, key: str, row: Data, middle: float, *, line: object, width: float) -> None:
    """From end to end; an end that lies beyond the axis is an arrow."""
    if row["low"] is None or row["high"] is None:
        return
    look = sheet.look(row)
    ends = [min(max(float(end), sheet.low), sheet.high) for end in (row["low"], row["high"])]
    thick = width * min(sheet.base, 1.6 * sheet.pitch)
    (drawn,) = sheet.axes.plot(ends, [middle, middle], color=look.ink, linewidth=thick, linestyle=line, zorder=2)
    sheet.tag(drawn, key)
    for place, sign, is_cut in ((ends[0], "<", row["low"] < sheet.low), (ends[1], ">", row["high"] > sheet.high)):
        if is_cut:
            (arrow,) = sheet.axes.plot(
                place, middle, marker=sign, markersize=3.2 * thick, color=look.ink, linestyle="none", clip_on=False,
                zorder=3,
            )  # fmt: skip
            sheet.tag(arrow, key)


def _diamond(sheet: Sheet, key: str, row: Data, middle: float) -> None:
    look, half = sheet.look(row), 0.5 * sheet.base
    low, high = (row["value"] if end is None else end for end in (row["low"], row["high"]))
    ends = [min(max(float(end), sheet.low), sheet.high) for end in (low, high)]
    if row["low"] is None:  # too few hosts for an interval: where the mean is, and no more
        (point,) = sheet.axes.plot(
            row["value"], middle, marker="d", markersize=0.8 * sheet.base, color=look.fill, linestyle="none"
        )
        sheet.tag(point, key, part="shape")
        return
    across = [ends[0], row["value"], ends[1], row["value"]]
    (shape,) = sheet.axes.fill(
        across, [middle, middle - half, middle, middle + half], facecolor=look.fill, edgecolor=look.ink,
        linewidth=1.2, zorder=3,
    )  # fmt: skip
    sheet.tag(shape, key, part="shape")
