"""Several backends' marks in one row, on a logarithmic axis of multiples; 1 is the baseline."""

from __future__ import annotations

from typing import Any

from lab.reports import style
from lab.reports.charts import Data
from lab.reports.drawing.scales import name_axis, set_scale
from lab.reports.drawing.sheet import Sheet, width_of

REACH = 0.62
"""How much of a row's height its marks share."""

NAMES = 0.9
"""The size of a row's name, in sizes of the panel's words."""


def marks(sheet: Sheet) -> None:
    """A row per thing compared. Its name stands on the left, the baseline's value small below it; on the right what
    is the most. A mark is hollow where no difference is proven. The first rows may be keys: which mark is whose.
    """
    set_scale(sheet, (), ())
    first = sum("keys" in row for row in sheet.rows) * sheet.pitch
    sheet.axes.plot([1, 1], [first, sheet.height], color=style.INK, linewidth=1.2, zorder=1)
    for index, row in enumerate(sheet.rows):
        if "keys" in row:
            _keys(sheet, row, index)
            continue
        if (index - int(first / sheet.pitch)) % 2 == 0:
            sheet.axes.axhspan(
                sheet.top(index), sheet.top(index) + sheet.pitch, color=style.RULE, alpha=0.28, linewidth=0, zorder=0
            )
        middle, gap = sheet.top(index) + sheet.pitch / 2, -0.7 * sheet.base
        key = sheet.name(row, index)
        sheet.write(key, gap, middle - 0.05 * sheet.base, row["label"], ha="right", fontweight="bold", size=NAMES)
        sheet.write(key, gap, middle + 0.85 * sheet.base, row["stamp"], size=0.78, color=style.QUIET, ha="right")
        right = sheet.width + 0.6 * sheet.base
        sheet.write(key, right, middle - 0.05 * sheet.base, row["text"], fontweight="bold", size=0.9)
        sheet.write(key, right, middle + 0.85 * sheet.base, row["note"], size=0.78, color=style.QUIET)
        for point in row["points"]:
            step = REACH * sheet.pitch / max(1, row["places"] - 1)
            across = middle if row["places"] == 1 else middle - REACH * sheet.pitch / 2 + point["place"] * step
            _mark(sheet, index, point, across)
    name_axis(sheet)


def _mark(sheet: Sheet, index: int, point: Data, y: float) -> None:
    look, key = sheet.look(point), sheet.mark(point, index, point["tip"])
    if point["low"] is not None and point["high"] is not None:
        ends = [min(max(end, sheet.low), sheet.high) for end in (point["low"], point["high"])]
        (line,) = sheet.axes.plot(ends, [y, y], color=look.fill, linewidth=0.12 * sheet.base, zorder=2)
        sheet.tag(line, key)
    _marker(sheet, key, point["value"], y, point, hollow=not point["claim"])


def _marker(sheet: Sheet, key: str, x: float, y: float, row: Data, *, hollow: bool = False, **options: Any) -> None:
    look = sheet.look(row)
    (artist,) = sheet.axes.plot(
        x, y, marker=look.marker, markersize=0.5 * sheet.base, linestyle="none", zorder=3, clip_on=False,
        markerfacecolor=style.PAPER if hollow else look.fill, markeredgecolor=look.ink, markeredgewidth=1.1,
        **options,
    )  # fmt: skip
    sheet.tag(artist, key, part="shape")


def _keys(sheet: Sheet, row: Data, index: int) -> None:
    """A line of the legend, from where the names begin."""
    from matplotlib.transforms import blended_transform_factory

    place = blended_transform_factory(sheet.axes.transAxes, sheet.axes.transData)
    names = [width_of(each["label"], NAMES * sheet.base, bold=True) for each in sheet.rows]
    y, x = sheet.top(index) + 0.5 * sheet.pitch, -max(names)
    for each in row["keys"]:
        key = sheet.name(each, index)
        _marker(sheet, key, (x + 0.4 * sheet.base) / sheet.width, y, each, transform=place)
        words = f"{each['text']} {sheet.look(each).short}".rstrip()
        sheet.write(key, x + 1.0 * sheet.base, y + 0.32 * sheet.base, words, color=sheet.look(each).ink, size=0.9)
        x += 1.0 * sheet.base + width_of(words, 0.9 * sheet.base) + 0.9 * sheet.base
