"""Where an axis begins and ends, and what is written on it."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from lab.analysis.quantities import format_value
from lab.reports import style
from lab.reports.charts import Data, Panel
from lab.reports.drawing.sheet import Sheet, width_of

TICK_LETTERS = 9
"""The room of a tick, in letters."""


def edge_of(row: Data) -> float:
    """The bar's end, or its interval's; an interval longer than the bar and half of it again runs out of the
    panel.
    """
    value = float(row["value"])
    high = row.get("high")
    return value + min((value if high is None else float(high)) - value, 1.5 * abs(value))


def low_of(row: Data) -> float:
    """The lower end of a row's interval, as far as it is above zero."""
    low = row.get("low")
    return float(low) if low is not None and low > 0 else float(row["value"])


def set_scale(sheet: Sheet, lows: Iterable[float], edges: Iterable[float]) -> None:
    """From zero, or from the least value where the panel is logarithmic, to where the data end."""
    if sheet.panel.span is not None:
        sheet.low, sheet.high = sheet.panel.span
        sheet.is_logarithmic = True
        sheet.axes.set_xscale("log")
        sheet.axes.set_xlim(sheet.low, sheet.high)
        _ticks(sheet)
        return
    high = max([edge for edge in edges if math.isfinite(edge)], default=0.0)
    least = min([low for low in lows if low > 0], default=0.0)
    sheet.is_logarithmic = bool(sheet.panel.logarithmic) and least > 0
    if sheet.is_logarithmic:
        sheet.low, sheet.high = least / 1.5, high * 1.08
        sheet.axes.set_xscale("log")
    else:
        sheet.low, sheet.high = 0.0, high * 1.01 or 1.0
    sheet.axes.set_xlim(sheet.low, sheet.high)
    _ticks(sheet)


def _ticks(sheet: Sheet) -> None:
    from matplotlib.ticker import FixedLocator, NullLocator

    axes, panel = sheet.axes, sheet.panel
    axes.xaxis.set_minor_locator(NullLocator())
    most = max(2, int(sheet.width / (TICK_LETTERS * 0.5 * sheet.base)))
    ticks = logarithmic(sheet.low, sheet.high, most, panel.unit) if sheet.is_logarithmic else linear(sheet, most)
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_major_formatter(lambda value, _: written(value, panel.unit, panel.prefix))
    axes.tick_params(axis="x", length=0, labelsize=0.82 * sheet.base, pad=0.3 * sheet.base)
    _keep_inside(sheet, ticks)


def _keep_inside(sheet: Sheet, ticks: list[float]) -> None:
    """The words of a tick so near to an end of the picture that it would cut them end, or begin, at the tick."""
    figure = sheet.axes.get_figure(root=True)
    assert figure is not None
    whole = figure.get_figwidth() * 72
    for tick, place in zip(sheet.axes.xaxis.get_major_ticks(), ticks, strict=False):
        words = written(place, sheet.panel.unit, sheet.panel.prefix)
        middle = sheet.axes.transData.transform((place, 0))[0] * 72 / figure.dpi
        half = width_of(words, 0.82 * sheet.base) / 2
        if middle + half > whole:
            tick.label1.set_horizontalalignment("right")
        elif middle - half < 0 and place > 0:
            tick.label1.set_horizontalalignment("left")


def logarithmic(low: float, high: float, most: int, unit: str = "") -> list[float]:
    """Round values between ``low`` and ``high``: 1, 2 and 5 of each decade, or fewer where these are too many; of
    bytes, powers of two.
    """
    if unit.startswith("bytes"):
        first, last = math.ceil(math.log2(low)), math.floor(math.log2(high))
        step = max(1, -(-(last - first + 1) // most))
        return [2.0**power for power in range(-(-first // step) * step, last + 1, step)]
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    found: list[float] = []
    for steps in ((1, 2, 5), (1, 3), (1,)):
        found = [step * 10.0**power for power in decades for step in steps if low <= step * 10.0**power <= high]
        if len(found) <= most:
            return found
    return found[:: -(-len(found) // most)]


def linear(sheet: Sheet, most: int) -> list[float]:
    """Round values from zero, in the prefix of the unit that is shown."""
    factor = factor_of(sheet.high, sheet.panel.unit, sheet.panel.prefix)
    rough = sheet.high / factor / most
    decade = 10.0 ** math.floor(math.log10(rough))
    step = next(each for each in (1, 2, 2.5, 5, 10) if each * decade >= rough * 0.999) * decade
    return [index * step * factor for index in range(int(sheet.high / factor / step + 1e-9) + 1)]


FACTORS: dict[str, tuple[float, ...]] = {
    "seconds": (1.0, 1e-3, 1e-6, 1e-9), "seconds/s": (1.0, 1e-3, 1e-6, 1e-9),
    "bytes": (1024.0**3, 1024.0**2, 1024.0, 1.0), "bytes/s": (1024.0**3, 1024.0**2, 1024.0, 1.0),
}  # fmt: skip


def factor_of(value: float, unit: str, prefix: tuple[float, str] | None) -> float:
    """What one of the shown unit is in the base unit."""
    if prefix is not None:
        return prefix[0]
    return next((each for each in FACTORS.get(unit, (1.0,)) if value >= each * 0.9995), FACTORS.get(unit, (1.0,))[-1])


def written(value: float, unit: str, prefix: tuple[float, str] | None) -> str:
    """A tick's words: in the panel's one prefix where it has one."""
    if value == 0:
        return "0"
    if prefix is not None:
        return f"{value / prefix[0]:,.6g} {prefix[1]}".rstrip()
    if unit in FACTORS:
        factor = factor_of(value, unit, None)
        name = format_value(factor, unit).partition(" ")[2]
        return f"{value / factor:,.4g} {name}"
    return f"{value:,.6g}"


def axis_words(panel: Panel) -> str:
    """What stands below an axis: its words, or a unit that its ticks don't name."""
    if panel.kind in ("shares", "counts", "groups"):
        return ""
    return panel.axis or ("" if panel.unit in (*FACTORS, "1", "") else panel.unit)


def name_axis(sheet: Sheet) -> None:
    """What the axis shows, below it."""
    options: dict[str, Any] = {"fontsize": 0.82 * sheet.base, "color": style.QUIET, "loc": "left"}
    sheet.axes.set_xlabel(axis_words(sheet.panel), **options)
