"""How much room each kind of panel needs around and between its rows; all of it in sizes of its words."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lab.reports import style
from lab.reports.charts import Data, Panel
from lab.reports.drawing import curves, forest, marks, rows, stacks
from lab.reports.drawing.marks import NAMES as NAMES_OF_MARKS
from lab.reports.drawing.scales import axis_words
from lab.reports.drawing.sheet import Look, Sheet, width_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, slots=True, kw_only=True)
class PanelKind:
    """A kind of panel: who paints it; ``pitch`` of its rows, room ``above`` and ``below`` them, in sizes of its
    words. ``gutter`` and ``column``: whether names stand on the left, and values on the right.
    """

    paint: Callable[[Sheet], None]
    pitch: float
    above: float = 0.4
    below: float = 2.9
    gutter: bool = False
    column: bool = False


KINDS: Mapping[str, PanelKind] = {
    "bars": PanelKind(paint=rows.bars, pitch=2.75),
    "dots": PanelKind(paint=rows.dots, pitch=3.3, gutter=True, column=True),
    "effects": PanelKind(paint=rows.effects, pitch=2.8, gutter=True, column=True),
    "parts": PanelKind(paint=stacks.parts, pitch=2.6, gutter=True, column=True),
    "shares": PanelKind(paint=stacks.shares, pitch=3.9, below=0.4, gutter=True, column=True),
    "counts": PanelKind(paint=stacks.counts, pitch=2.75, below=0.4),
    "groups": PanelKind(paint=stacks.groups, pitch=2.3, above=2.2, below=0.4, gutter=True),
    "marks": PanelKind(paint=marks.marks, pitch=2.1, gutter=True, column=True),
    "forest": PanelKind(paint=forest.forest, pitch=2.5, gutter=True, column=True),
    "thicket": PanelKind(paint=forest.forest, pitch=0.28, gutter=True, column=True),
    "lines": PanelKind(paint=curves.lines, pitch=0.0, gutter=True, column=True),
}
LINES_HEIGHT = 20.0
TICKS_ALONE = 1.6
"""Below an axis that has no words of its own."""


def height_of(panel: Panel, base: float) -> float:
    """The height of a panel in points, without its title."""
    kind = KINDS[panel.kind]
    inner = LINES_HEIGHT if panel.kind == "lines" else kind.pitch * len(panel.rows)
    return (kind.above + inner + _below(panel)) * base


def _below(panel: Panel) -> float:
    below = KINDS[panel.kind].below
    return below if axis_words(panel) else min(below, TICKS_ALONE)


def paint(
    figure: Figure, panel: Panel, looks: Mapping[str, Look], base: float, box: tuple[float, float, float],
    *, alternative: bool = False,
) -> Sheet:  # fmt: skip
    """Paint ``panel`` into ``box``: its left edge, its top edge, its width, in points from the figure's upper
    left.
    """
    kind, (left, top, width) = KINDS[panel.kind], box
    before = _gutter(panel, looks, base) if kind.gutter else 0.3 * base
    after = _column(panel, base) if kind.column else 0.3 * base
    whole_width, whole_height = figure.get_figwidth() * 72, figure.get_figheight() * 72
    inner = height_of(panel, base) - (kind.above + _below(panel)) * base
    wide = max(8 * base, width - before - after)
    bottom = whole_height - top - kind.above * base - inner
    axes = figure.add_axes((
        (left + before) / whole_width, bottom / whole_height, wide / whole_width, inner / whole_height,
    ))  # fmt: skip
    axes.patch.set_visible(False)
    axes.set_ylim(inner, 0)
    axes.set_yticks([])
    axes.spines["bottom"].set_color(style.RULE)
    sheet = Sheet(
        axes=axes, panel=panel, looks=looks, base=base, width=wide, height=inner, pitch=kind.pitch * base,
        alternative=alternative,
    )  # fmt: skip
    kind.paint(sheet)
    axes.set_ylim(inner, 0)
    return sheet


def _gutter(panel: Panel, looks: Mapping[str, Look], base: float) -> float:
    if panel.kind == "lines":
        return 5.2 * base
    size = NAMES_OF_MARKS * base if panel.kind == "marks" else base
    names = [width_of(str(row.get("name", row["label"])), size, bold=True) for row in panel.rows]
    stamps = [width_of(_stamp(row, looks), 0.82 * base) for row in panel.rows]
    return max([*names, *stamps], default=0.0) + 1.2 * base


def _stamp(row: Data, looks: Mapping[str, Look]) -> str:
    if "stamp" in row:
        return str(row["stamp"])
    look = looks.get(str(row.get("arm", "")))
    return look.stamp if look else ""


def _column(panel: Panel, base: float) -> float:
    texts = [width_of(str(row.get("text", "")), 1.05 * base, bold=True) for row in panel.rows]
    notes = [
        width_of(str(row.get("note" if panel.kind != "shares" else "beside", "")), 0.82 * base) for row in panel.rows
    ]
    return max([*texts, *notes], default=0.0) + 1.0 * base
