"""Panels of stacked bars: parts of an amount, shares of a time, counts of answers."""

from __future__ import annotations

from collections.abc import Sequence

from lab.reports import style
from lab.reports.charts import Data
from lab.reports.drawing.rows import beside, names
from lab.reports.drawing.scales import name_axis, set_scale
from lab.reports.drawing.sheet import Sheet, width_of


def parts(sheet: Sheet) -> None:
    """What an amount consists of, from zero; a diamond marks the figure that the headline names."""
    wholes = [sum(part["value"] for part in row["parts"]) for row in sheet.rows]
    edges = [
        max([whole, *([row["diamond"]["value"]] if row["diamond"] else [])])
        for whole, row in zip(wholes, sheet.rows, strict=True)
    ]
    set_scale(sheet, edges, edges)
    names(sheet)
    for index, row in enumerate(sheet.rows):
        middle, left = sheet.top(index) + sheet.pitch / 2, 0.0
        for part in row["parts"]:
            key = sheet.mark(row, index, part["tip"], left, left + part["value"])
            bar = sheet.axes.barh(
                middle, part["value"], left=left, height=0.56 * sheet.pitch, color=part["fill"],
                hatch=part["hatch"], edgecolor=style.PAPER, linewidth=0.6,
            )  # fmt: skip
            sheet.tag(bar.patches[0], key, part="shape", scaled=True)
            left += part["value"]
        words = sheet.name(row, index)
        if row["diamond"]:
            words = sheet.mark(row, index, row["diamond"]["tip"], edges[index], edges[index])
            (diamond,) = sheet.axes.plot(
                row["diamond"]["value"], middle, marker="D", markersize=0.62 * sheet.base, color="#f0e442",
                markeredgecolor="#1a1a19", linestyle="none", zorder=4,
            )  # fmt: skip
            sheet.tag(diamond, words, part="shape", scaled=True)
        beside(sheet, words, index, row["text"], row["note"])
    name_axis(sheet)


def shares(sheet: Sheet) -> None:
    """Each row stretched to the same length: only proportions within a row can be read. Parts too short for their
    words have them above, with a line to the part.
    """
    _as_points(sheet)
    names(sheet)
    for index, row in enumerate(sheet.rows):
        whole = sum(part["value"] for part in row["parts"])
        low, high = sheet.top(index) + 0.46 * sheet.pitch, sheet.top(index) + 0.92 * sheet.pitch
        left, outside = 0.0, []
        for part in row["parts"]:
            length = part["value"] / whole * sheet.width
            key = sheet.mark(row, index, part["tip"])
            bar = sheet.axes.barh(
                (low + high) / 2, length, left=left, height=high - low, color=part["fill"], edgecolor=style.PAPER,
                linewidth=0.8,
            )  # fmt: skip
            sheet.tag(bar.patches[0], key, part="shape")
            if width_of(part["text"], 0.95 * sheet.base, bold=True) + 6 < length:
                middle = (low + high) / 2 + 0.34 * sheet.base
                sheet.write(
                    key,
                    left + length / 2,
                    middle,
                    part["text"],
                    size=0.95,
                    color=part["ink"],
                    ha="center",
                    fontweight="bold",
                )
            else:
                outside.append((key, left + length / 2, part["text"]))
            left += length
        _outside(sheet, outside, low)
        beside(sheet, sheet.name(row, index), index, row["text"], row["beside"])


def _outside(sheet: Sheet, words: Sequence[tuple[str, float, str]], low: float) -> None:
    """Words above a bar, moved apart where they would meet, each with a line to its part."""
    size = 0.78 * sheet.base
    widths = [width_of(text, size) + 0.5 * size for _, _, text in words]
    places = [min(max(x, width / 2), sheet.width - width / 2) for (_, x, _), width in zip(words, widths, strict=True)]
    for index in range(1, len(places)):
        places[index] = max(places[index], places[index - 1] + (widths[index - 1] + widths[index]) / 2)
    right = sheet.width
    for index in reversed(range(len(places))):
        places[index] = min(places[index], right - widths[index] / 2)
        right = places[index] - widths[index] / 2
    line = low - 0.75 * sheet.base
    for (key, x, text), place in zip(words, places, strict=True):
        sheet.write(key, place, line, text, size=0.78, ha="center")
        (lead,) = sheet.axes.plot([place, x], [line + 0.2 * sheet.base, low], color=style.QUIET, linewidth=0.8)
        sheet.tag(lead, key)


def counts(sheet: Sheet) -> None:
    """A bar of four counts for each backend."""
    _as_points(sheet)
    for index, row in enumerate(sheet.rows):
        top, look = sheet.top(index), sheet.look(row)
        key = sheet.name(row, index)
        sheet.write(key, 0, top + 0.43 * sheet.pitch, row["label"], color=look.ink, fontweight="bold")
        sheet.write(key, sheet.width, top + 0.43 * sheet.pitch, row["text"], size=0.82, color=style.QUIET, ha="right")
        _counted(sheet, row, index, (0.0, sheet.width), (top + 0.53 * sheet.pitch, top + 0.87 * sheet.pitch))


def groups(sheet: Sheet) -> None:
    """A row per group of questions, a column per backend, a bar of four counts in each."""
    _as_points(sheet)
    columns = sheet.panel.ticks
    across = sheet.width / len(columns)
    for at, label in enumerate(columns):
        look = sheet.looks[label]
        key = sheet.name({"arm": label}, 0)
        sheet.write(
            key, at * across + 0.03 * across, -0.5 * sheet.base, label, color=look.ink, fontweight="bold", size=1.1
        )
        if look.short:
            beside_name = (
                at * across + 0.03 * across + width_of(label, 1.1 * sheet.base, bold=True) + 0.9 * sheet.base
            )
            sheet.write(key, beside_name, -0.5 * sheet.base, look.short, size=0.82, color=style.QUIET)
    for index, row in enumerate(sheet.rows):
        top = sheet.top(index)
        key = sheet.name({}, index)
        sheet.write(key, -0.8 * sheet.base, top + 0.62 * sheet.pitch, row["label"], ha="right", fontweight="bold")
        for at, label in enumerate(columns):
            cell = row["cells"].get(label)
            if cell:
                left = at * across + 0.03 * across
                _counted(
                    sheet,
                    cell,
                    index,
                    (left, left + 0.9 * across),
                    (top + 0.2 * sheet.pitch, top + 0.8 * sheet.pitch),
                )


def _counted(sheet: Sheet, row: Data, index: int, xs: tuple[float, float], ys: tuple[float, float]) -> None:
    whole = sum(part["value"] for part in row["parts"]) or 1
    left, middle = xs[0], sum(ys) / 2
    for part in row["parts"]:
        length = part["value"] / whole * (xs[1] - xs[0])
        key = sheet.mark(row, index, part["tip"], opens=part["reach"], group=row.get("group"))
        bar = sheet.axes.barh(
            middle, length, left=left, height=ys[1] - ys[0], color=part["fill"], edgecolor=part["ink"], linewidth=0.8
        )
        sheet.tag(bar.patches[0], key, part="shape")
        long, short = f"{part['symbol']} {part['value']}", str(part["value"])
        size = 0.9 if ys[1] - ys[0] > 1.1 * sheet.base else 0.78
        text = next(
            (each for each in (long, short) if 0.9 * width_of(each, size * sheet.base, bold=True) < length), ""
        )
        sheet.write(
            key,
            left + length / 2,
            middle + 0.34 * size * sheet.base,
            text,
            size=size,
            color=part["ink"],
            ha="center",
            fontweight="bold",
        )
        left += length


def _as_points(sheet: Sheet) -> None:
    """Axes without a scale: x runs in points too."""
    sheet.axes.set_xlim(0, sheet.width)
    sheet.axes.set_xticks([])
    sheet.axes.grid(False)
    sheet.axes.spines["bottom"].set_visible(False)
