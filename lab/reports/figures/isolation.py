"""Isolation: one row per question, one column per boundary; a word, a symbol and a colour per answer."""

from __future__ import annotations

from collections.abc import Callable
from textwrap import shorten
from typing import TYPE_CHECKING, Any

from lab.reports import style
from lab.reports.answers import WORDS, Cell, Probe, matrix
from lab.reports.material import Material, stamp, stamped

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

QUESTION_WIDTH = 2.5
"""The width of the questions' column, in columns of answers."""


def draw(material: Material, keep: Callable[[Figure], None]) -> str:
    """A table, drawn: groups of probes as rows, backends as columns."""
    probes = matrix(material)
    arms = material.arms
    groups = len({probe.group for probe in probes})
    rows = len(probes) + 0.75 * groups
    with style.canvas(14.2, 2.7 + 0.52 * rows) as (figure, axes):
        axes.set_axis_off()
        for column, arm in enumerate(arms):
            axes.text(
                column + 0.5,
                -0.55,
                arm.label,
                ha="center",
                va="bottom",
                fontsize=18,
                fontweight="bold",
                color=style.colour(arm),
            )
            axes.text(column + 0.5, -0.5, stamp(arm), ha="center", va="top", fontsize=12.5, color=style.QUIET)
        y, group = 0.1, None
        for probe in probes:
            if probe.group != group:
                group = probe.group
                axes.text(
                    -QUESTION_WIDTH,
                    y + 0.52,
                    group.upper(),
                    va="center",
                    fontsize=12.5,
                    fontweight="bold",
                    color=style.QUIET,
                )
                y += 0.75
            axes.text(
                -QUESTION_WIDTH, y + 0.5, shorten(probe.question, 44, placeholder=" …"), va="center", fontsize=15
            )
            for column, arm in enumerate(arms):
                _cell(axes, column, y, probe.cells.get(arm.label))
            y += 1
        axes.set_xlim(-QUESTION_WIDTH, len(arms))
        axes.set_ylim(y + 0.1, -1.3)
        _legend(figure, probes)
        style.headline(
            figure, "What each boundary lets through",
            "asked from inside, answered by what happened · a VM may do much, but to its own kernel · not a ranking",
        )  # fmt: skip
        keep(figure)
    return "Isolation answers. " + " ".join(_sentence(probe, material) for probe in probes)


def _cell(axes: Axes, column: int, y: float, cell: Cell | None) -> None:
    from matplotlib.patches import FancyBboxPatch

    fill, ink, symbol = style.REACH[cell.reach if cell else "unknown"]
    if cell is None:
        symbol, answer = "–", "not asked"
    else:
        answer = shorten(cell.answer, 16, placeholder="…") or "no answer"
    box: dict[str, Any] = {"facecolor": fill, "edgecolor": fill, "linewidth": 0.5}
    if cell and cell.unexpected:
        box |= {"edgecolor": style.INK, "linewidth": 2.6}
    rounded = "round,pad=0,rounding_size=0.08"
    axes.add_patch(FancyBboxPatch((column + 0.07, y + 0.12), 0.86, 0.76, boxstyle=rounded, **box))
    surprise = "  !" if cell and (cell.unexpected or cell.varied) else ""
    axes.text(
        column + 0.5,
        y + 0.5,
        f"{symbol}  {answer}{surprise}",
        ha="center",
        va="center",
        fontsize=15,
        color=ink,
        fontweight="bold",
    )


def _legend(figure: Figure, probes: tuple[Probe, ...]) -> None:
    from matplotlib.patches import Patch

    cells = [cell for probe in probes for cell in probe.cells.values()]
    used = {cell.reach for cell in cells}
    handles = [
        Patch(facecolor=fill, edgecolor=ink, label=f"{symbol} {WORDS[name]}")
        for name, (fill, ink, symbol) in style.REACH.items()
        if name in used
    ]
    if any(cell.unexpected for cell in cells):
        handles.append(
            Patch(facecolor=style.PAPER, edgecolor=style.INK, linewidth=2.6, label="! not what was expected")
        )
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))


def _sentence(probe: Probe, material: Material) -> str:
    answers = (f"{stamped(arm)} {probe.cells[arm.label].answer}" for arm in material.arms if arm.label in probe.cells)
    return f"{probe.question} {', '.join(answers)}."
