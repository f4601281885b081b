"""A line per backend or level, over named positions; the values on a logarithmic axis."""

from __future__ import annotations

from lab.reports import style
from lab.reports.charts import Data
from lab.reports.drawing.scales import logarithmic, written
from lab.reports.drawing.sheet import Look, Sheet

MOST_TICKS = 8


def lines(sheet: Sheet) -> None:
    """Lines of those that were emulated are dashed; each is named at its end, inside the picture."""
    from matplotlib.ticker import FixedLocator, NullLocator

    axes = sheet.axes
    values = [end for row in sheet.rows for point in row["points"] for end in _ends(point)]
    if not values:
        return
    low, high = min(values) / 1.15, max(values) * 1.15
    # y runs downwards in points: a value's place is counted from the top
    from math import log

    def place(value: float) -> float:
        return (log(high) - log(value)) / (log(high) - log(low)) * sheet.height

    ticks = logarithmic(low, high, MOST_TICKS, sheet.panel.unit)
    axes.yaxis.set_major_locator(FixedLocator([place(tick) for tick in ticks]))
    axes.yaxis.set_minor_locator(NullLocator())
    names = [written(tick, sheet.panel.unit, sheet.panel.prefix) for tick in ticks]
    axes.set_yticks([place(tick) for tick in ticks], names)
    axes.tick_params(axis="y", length=0, labelsize=0.82 * sheet.base, colors=style.QUIET)
    axes.grid(True, axis="y")
    axes.grid(False, axis="x")
    axes.set_xlim(-0.15, len(sheet.panel.ticks) - 0.85)
    axes.set_xticks(range(len(sheet.panel.ticks)), list(sheet.panel.ticks))
    axes.tick_params(axis="x", length=0, labelsize=0.82 * sheet.base)
    axes.set_xlabel(sheet.panel.axis, fontsize=0.82 * sheet.base, color=style.QUIET, loc="left")
    below = float("inf")
    for row in sorted(sheet.rows, key=lambda row: row["points"][-1]["value"]):
        look = _look(sheet, row)
        key = sheet.name(row, 0)
        (line,) = axes.plot(
            [point["at"] for point in row["points"]], [place(point["value"]) for point in row["points"]],
            color=look.fill, linewidth=0.17 * sheet.base, linestyle=_line(row, look),
        )  # fmt: skip
        sheet.tag(line, key)
        for point in row["points"]:
            _point(sheet, row, point, look, [place(end) for end in _ends(point)], place(point["value"]))
        below = min(place(row["points"][-1]["value"]) + 0.35 * sheet.base, below - 1.25 * sheet.base)
        sheet.write(
            key, sheet.width + 0.3 * sheet.base, below, row["text"], color=look.ink, fontweight="bold", size=0.92
        )


def _line(row: Data, look: Look) -> str:
    own = row.get("look", {}).get("line", "")
    return str(own) or ("--" if look.hatch else "-")


def _ends(point: Data) -> tuple[float, float]:
    value = float(point["value"])
    low, high = point.get("low"), point.get("high")
    return (low if low is not None and low > 0 else value, value if high is None else min(high, 2.5 * value))


def _look(sheet: Sheet, row: Data) -> Look:
    own = row.get("look")
    if own is None:
        return sheet.look(row)
    return Look(fill=own["fill"], ink=own["ink"], marker=own["marker"], hatch="", stamp="", short="")


def _point(sheet: Sheet, row: Data, point: Data, look: Look, ends: list[float], y: float) -> None:
    key = sheet.mark(row, 0, point["tip"])
    if ends[0] != ends[1]:
        (reach,) = sheet.axes.plot([point["at"]] * 2, ends, color=look.ink, linewidth=0.11 * sheet.base)
        sheet.tag(reach, key)
    (marker,) = sheet.axes.plot(
        point["at"], y, marker=look.marker, markersize=0.62 * sheet.base, markerfacecolor=look.fill,
        markeredgecolor=look.ink, linestyle="none", zorder=3,
    )  # fmt: skip
    sheet.tag(marker, key, part="shape")
