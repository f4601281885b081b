"""Panels of rows: bars, every observation, and effects about 1."""

from __future__ import annotations

from typing import Any

from lab.reports import style
from lab.reports.charts import Data
from lab.reports.drawing.scales import edge_of, low_of, name_axis, set_scale
from lab.reports.drawing.sheet import Sheet, width_of


def bars(sheet: Sheet) -> None:
    """A bar each, from zero; on a logarithmic axis, where lengths mean nothing, a marker on a stem. The words stand
    above: the name on the left, the value and what is to be said of it on the right.
    """
    found = [row for row in sheet.rows if row["value"] is not None]
    set_scale(sheet, (low_of(row) for row in found), (edge_of(row) for row in found))
    for index, row in enumerate(sheet.rows):
        top, look = sheet.top(index), sheet.look(row)
        if row["value"] is None:
            _above(sheet, sheet.name(row, index), row, top, row["text"])
            continue
        key = sheet.mark(row, index, row["tip"], low_of(row), edge_of(row))
        middle, height = top + 0.7 * sheet.pitch, 0.34 * sheet.pitch
        bar = sheet.axes.barh(
            middle, row["value"] - sheet.low, left=sheet.low, height=height, color=look.fill, hatch=look.hatch,
            edgecolor=style.PAPER, linewidth=0, visible=not sheet.is_logarithmic or sheet.alternative,
        )  # fmt: skip
        sheet.tag(bar.patches[0], key, part="length", scaled=True)
        _stem(sheet, key, row, middle)
        whisker(sheet, key, row, middle)
        _above(sheet, key, row, top, row["text"])
    name_axis(sheet)


def _stem(sheet: Sheet, key: str, row: Data, middle: float) -> None:
    if not (sheet.is_logarithmic or sheet.alternative):
        return
    look = sheet.look(row)
    (stem,) = sheet.axes.plot(
        [sheet.low, row["value"]], [middle, middle], color=look.fill, linewidth=0.18 * sheet.base
    )
    sheet.tag(stem, key, part="stem", scaled=True)
    point(sheet, key, row["value"], middle, row, part="stem")


def point(sheet: Sheet, key: str, x: float, y: float, row: Data, *, part: str, **options: Any) -> None:
    """The backend's marker."""
    look = sheet.look(row)
    shape: dict[str, Any] = {
        "marker": look.marker, "markersize": 0.68 * sheet.base, "markerfacecolor": look.fill,
        "markeredgecolor": look.ink, "linestyle": "none", "zorder": 3,
    }  # fmt: skip
    (artist,) = sheet.axes.plot(x, y, **shape | options)
    sheet.tag(artist, key, part=part, scaled=True)


def whisker(sheet: Sheet, key: str, row: Data, middle: float) -> None:
    """The interval, with caps; none where there is none."""
    low, high = row.get("low"), row.get("high")
    if low is None or high is None or not high > low:
        return
    ends = [max(float(low), sheet.low), min(float(high), edge_of(row))]
    (line,) = sheet.axes.plot(
        ends, [middle, middle], color=style.INK, linewidth=0.11 * sheet.base, marker="|", zorder=4,
        markersize=0.55 * sheet.base, markeredgewidth=0.11 * sheet.base,
    )  # fmt: skip
    sheet.tag(line, key, part="whisker", scaled=True)


def _above(sheet: Sheet, key: str, row: Data, top: float, text: str) -> None:
    """Name and accelerator on the left, value and remark on the right, in a line above the bar."""
    look, base = sheet.look(row), sheet.base
    line = top + 0.43 * sheet.pitch
    name = str(row.get("name", row["label"]))
    sheet.write(key, 0, line, name, color=look.ink, fontweight="bold")
    remarks = max((width_of(str(each.get("note", "")), 0.82 * base) for each in sheet.rows), default=0.0)
    beside = remarks + (0.6 * base if remarks else 0)
    after = width_of(name, base, bold=True) + 0.9 * base
    if (
        look.short
        and after + width_of(look.short, 0.82 * base) + width_of(text, base, bold=True) + beside < sheet.width
    ):
        sheet.write(key, after, line, look.short, size=0.82, color=style.QUIET)
    sheet.write(key, sheet.width, line, str(row.get("note", "")), size=0.82, color=style.QUIET, ha="right")
    weight = "bold" if row["value"] is not None else "normal"
    sheet.write(key, sheet.width - beside, line, text, ha="right", fontweight=weight)


def names(sheet: Sheet) -> None:
    """The rows' names on the left of the axes, each once for the rows that share it; the accelerator below."""
    for index, row in enumerate(sheet.rows):
        if index and row["label"] == sheet.rows[index - 1]["label"]:
            continue
        same = sum(each["label"] == row["label"] for each in sheet.rows)
        middle, key, look = sheet.top(index) + same * sheet.pitch / 2, sheet.name(row, index), sheet.look(row)
        gap = -0.7 * sheet.base
        sheet.write(
            key, gap, middle - 0.05 * sheet.base, str(row.get("name", row["label"])), color=look.ink, ha="right",
            fontweight="bold",
        )  # fmt: skip
        below = str(row.get("stamp", look.stamp))
        sheet.write(key, gap, middle + 1.0 * sheet.base, below, size=0.82, color=style.QUIET, ha="right")


def beside(sheet: Sheet, key: str, index: int, text: str, note: str, *, weight: str = "bold") -> None:
    """Value and remark on the right of the axes."""
    middle, right = sheet.top(index) + sheet.pitch / 2, sheet.width + 0.8 * sheet.base
    sheet.write(key, right, middle - 0.05 * sheet.base, text, fontweight=weight, size=1.05)
    sheet.write(key, right, middle + 1.0 * sheet.base, note, size=0.82, color=style.QUIET)


def dots(sheet: Sheet) -> None:
    """Every observation; a band for the interval of the median, a line for the median."""
    edges = [max([edge_of(row), *(point["value"] for point in row["points"])]) for row in sheet.rows]
    lows = [min([low_of(row), *(point["value"] for point in row["points"])]) for row in sheet.rows]
    set_scale(sheet, lows, edges)
    names(sheet)
    for index, row in enumerate(sheet.rows):
        middle, reach = sheet.top(index) + sheet.pitch / 2, 0.36 * sheet.pitch
        key = sheet.mark(row, index, row["tip"], lows[index], edges[index])
        if row["low"] is not None and row["high"] is not None:
            band = sheet.axes.barh(
                middle, row["high"] - row["low"], left=row["low"], height=2 * reach, color=sheet.look(row).fill,
                alpha=0.22, linewidth=0,
            )  # fmt: skip
            sheet.tag(band.patches[0], key, part="band", scaled=True)
        (line,) = sheet.axes.plot(
            [row["value"]] * 2, [middle - reach, middle + reach], color=style.INK, linewidth=2.4
        )
        sheet.tag(line, key, part="shape", scaled=True)
        beside(sheet, key, index, row["text"], row["note"])
        for each in row["points"]:
            # spread by block, not at random: the same picture every time
            y = middle + 0.1 * sheet.pitch * ((7 * each["block"]) % 5 - 2)
            one = sheet.mark(row, index, each["tip"], each["value"], each["value"])
            face = style.PAPER if row["twin"] else sheet.look(row).fill
            point(sheet, one, each["value"], y, row, part="shape", markerfacecolor=face, markersize=0.6 * sheet.base)
    name_axis(sheet)


def effects(sheet: Sheet) -> None:
    """Ratios about 1, on an axis that is as long to both sides; grey is what the A/A pair differs from itself."""
    from matplotlib.ticker import FixedLocator, NullLocator

    axes, far = sheet.axes, sheet.panel.reach**1.25
    axes.set_xscale("log")
    axes.set_xlim(1 / far, far)
    axes.axvspan(1 / sheet.panel.band, sheet.panel.band, color=style.RULE, alpha=0.5, linewidth=0)
    axes.axvline(1, color=style.INK, linewidth=1.2)
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_locator(
        FixedLocator([tick for tick in map(float, sheet.panel.ticks) if 1 / far <= tick <= far])
    )
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.tick_params(axis="x", length=0, labelsize=0.82 * sheet.base)
    names(sheet)
    for index, row in enumerate(sheet.rows):
        middle, look = sheet.top(index) + sheet.pitch / 2, sheet.look(row)
        if row["value"] is None:
            beside(sheet, sheet.name(row, index), index, "not measured", "", weight="normal")
            continue
        key = sheet.mark(row, index, row["tip"])
        if row["low"] is not None and row["high"] is not None:
            ends = [min(max(end, 1 / far), far) for end in (row["low"], row["high"])]
            (line,) = axes.plot(ends, [middle, middle], color=look.fill, linewidth=0.2 * sheet.base)
            sheet.tag(line, key)
        face = look.fill if row["claim"] else style.PAPER
        place = min(max(row["value"], 1 / far), far)
        point(sheet, key, place, middle, row, part="shape", markerfacecolor=face, markeredgewidth=1.6)
        beside(sheet, key, index, row["text"], row["note"], weight="bold" if row["claim"] else "normal")
    name_axis(sheet)
