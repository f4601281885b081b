"""A whole chart as PNG and SVG: its panels side by side, below a title."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from lab.reports import style
from lab.reports.charts import Chart, Panel
from lab.reports.drawing.layout import height_of, paint
from lab.reports.drawing.sheet import Look, width_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WIDTH = 1022.0  # points; 1562 pixels at 110 dpi
BASE = 15.0
EDGE = 0.9 * BASE
TITLE = 4.6 * BASE
HEAD = 1.9 * BASE  # of a panel's title
BETWEEN = 1.5 * BASE
LEGEND = 1.9 * BASE


def picture(chart: Chart, looks: Mapping[str, Look], directory: Path, name: str) -> tuple[Path, Path]:
    """Write NAME.png and NAME.svg into ``directory``; the same chart gives the same bytes."""
    with composed(chart, looks) as figure:
        return style.save(figure, directory, name)


def projected(chart: Chart, looks: Mapping[str, Look], least_height: float) -> str:
    """The chart as the text of an SVG, in colours that a projector's lamp doesn't wash out."""
    raw = io.StringIO()
    with composed(chart, looks, least_height) as figure:
        figure.savefig(raw, format="svg", metadata={"Date": None})
    text = raw.getvalue()
    for pale, strong in style.PROJECTED.items():
        text = text.replace(pale, strong)
    return text


@contextmanager
def composed(chart: Chart, looks: Mapping[str, Look], least_height: float = 0.0) -> Iterator[Figure]:
    """The chart as one figure, at least ``least_height`` points high."""
    lines = [chart.panels[at : at + chart.columns] for at in range(0, len(chart.panels), chart.columns)]
    heights = [max((_height(panel) for panel in line), default=0.0) for line in lines]
    height = TITLE + sum(heights) + BETWEEN * max(0, len(lines) - 1) + EDGE
    whole = max(height, least_height)
    with style.blank(WIDTH / 72, whole / 72) as figure:
        style.headline(figure, chart.title, chart.how)
        top = TITLE + (whole - height) / 2
        width = (WIDTH - 2 * EDGE - BETWEEN * (chart.columns - 1)) / chart.columns
        for line, tall in zip(lines, heights, strict=True):
            for column, panel in enumerate(line):
                _panel(figure, panel, looks, (EDGE + column * (width + BETWEEN), top, width))
            top += tall + BETWEEN
        yield figure


def _height(panel: Panel) -> float:
    return (HEAD if panel.title else 0.0) + height_of(panel, BASE) + (LEGEND if panel.legend else 0.0)


def _panel(figure: Figure, panel: Panel, looks: Mapping[str, Look], box: tuple[float, float, float]) -> None:
    from matplotlib.patches import Rectangle

    left, top, width = box
    whole_width, whole_height = figure.get_figwidth() * 72, figure.get_figheight() * 72
    if panel.title:
        place = (left / whole_width, 1 - (top + 0.2 * BASE) / whole_height)
        figure.text(*place, panel.title, va="top", fontsize=1.08 * BASE, fontweight="bold")
    below = top + (HEAD if panel.title else 0.0)
    paint(figure, panel, looks, BASE, (left, below, width))
    y = 1 - (below + height_of(panel, BASE) + 0.9 * BASE) / whole_height
    x = left
    for fill, words in panel.legend:
        colour = "#f0e442" if fill == "diamond" else fill
        place, size = (
            (x / whole_width, y - 0.05 * BASE / whole_height),
            (0.8 * BASE / whole_width, 0.8 * BASE / whole_height),
        )
        figure.patches.append(
            Rectangle(
                place, *size, facecolor=colour, edgecolor=style.QUIET, linewidth=0.8, transform=figure.transFigure,
                figure=figure,
            )
        )  # fmt: skip
        figure.text((x + 1.2 * BASE) / whole_width, y, words, fontsize=0.9 * BASE, va="baseline")
        x += 1.2 * BASE + width_of(words, 0.9 * BASE) + 1.6 * BASE
