"""Isolation: one row per question, one column per boundary; a word, a symbol and a colour per answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from textwrap import fill, shorten
from typing import TYPE_CHECKING, Any

from lab.reports import style
from lab.reports.answers import WORDS, Cell, Probe, matrix
from lab.reports.material import Material, stamp, stamped

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

QUESTION_WIDTH = 3.4
"""The width of the questions' column, in columns of answers."""

LINE = 40
"""Characters of a question in one line; longer ones are set in two."""

GROUP_HEIGHT = 0.75
LONGEST_COLUMN = 16
"""More rows than that are set in two columns, so that the whole still fits a screen."""


def draw(material: Material, keep: Callable[[Figure], None]) -> str:
    """A table, drawn: groups of probes as rows, backends as columns."""
    probes = matrix(material)
    columns = _split(probes)
    size = 15.0 if len(columns) == 1 else 13.0
    height = max(_height(column) for column in columns)
    unit, row = (2.0, 0.52) if len(columns) == 1 else (1.3, 0.44)
    width = max(11.0, unit * len(columns) * (QUESTION_WIDTH + len(material.arms)))
    with style.canvas(width, 2.6 + row * height, ncols=len(columns), squeeze=False) as (figure, grid):
        for axes, column in zip(grid[0], columns, strict=True):
            _column(axes, column, material, height, size)
        _legend(figure, probes)
        style.headline(
            figure, "What each boundary lets through",
            "asked from inside, answered by what happened · a VM may do much, but to its own kernel · not a ranking",
        )  # fmt: skip
        keep(figure)
    return "Isolation answers. " + " ".join(_sentence(probe, material) for probe in probes)


def _height(probes: Sequence[Probe]) -> float:
    return len(probes) + GROUP_HEIGHT * len({probe.group for probe in probes})


def _split(probes: tuple[Probe, ...]) -> list[tuple[Probe, ...]]:
    """One column, or two of about equal height that don't tear a group apart."""
    if len(probes) <= LONGEST_COLUMN:
        return [probes]
    groups = list(dict.fromkeys(probe.group for probe in probes))
    halves = [
        tuple(tuple(probe for probe in probes if (probe.group in groups[:cut]) is first) for first in (True, False))
        for cut in range(1, len(groups))
    ]
    return list(min(halves, key=lambda half: max(map(_height, half)), default=(probes,)))


def _column(axes: Axes, probes: Sequence[Probe], material: Material, height: float, size: float) -> None:
    axes.set_axis_off()
    arms = material.arms
    for column, arm in enumerate(arms):
        centre: dict[str, Any] = {"x": column + 0.5, "ha": "center"}
        axes.text(
            **centre, y=-0.55, s=arm.label, va="bottom", fontsize=size + 2, fontweight="bold", color=style.ink(arm)
        )
        axes.text(**centre, y=-0.5, s=stamp(arm), va="top", fontsize=size - 2.5, color=style.QUIET)
    y, group = 0.1, None
    for probe in probes:
        if probe.group != group:
            group = probe.group
            heading: dict[str, Any] = {"fontsize": size - 2.5, "fontweight": "bold", "color": style.QUIET}
            axes.text(-QUESTION_WIDTH, y + 0.52, group.upper(), va="center", **heading)
            y += GROUP_HEIGHT
        question = fill(probe.question, LINE)
        smaller = size - 2.5 if "\n" in question else size
        axes.text(-QUESTION_WIDTH, y + 0.5, question, va="center", fontsize=smaller, linespacing=1.0)
        for column, arm in enumerate(arms):
            _cell(axes, column, y, probe.cells.get(arm.label), size)
        y += 1
    axes.set_xlim(-QUESTION_WIDTH, len(arms))
    axes.set_ylim(height + 0.2, -1.3)


def _cell(axes: Axes, column: int, y: float, cell: Cell | None, size: float) -> None:
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
    surprise = " !" if cell and (cell.unexpected or cell.varied) else ""
    look: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": size, "fontweight": "bold", "color": ink}
    axes.text(column + 0.5, y + 0.5, f"{symbol} {answer}{surprise}", **look)


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
