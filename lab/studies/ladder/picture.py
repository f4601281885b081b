"""The ladder in one picture: rungs as columns, what they cost above, what they stop below, as a staircase. And at a
glance, where a hundred questions would be too small to read: how many are left open, instead of which.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING, Any

from lab.analysis.loaded import Loaded
from lab.analysis.quantities import format_value
from lab.model import Accelerator
from lab.reports import style
from lab.reports.answers import WORDS
from lab.results.record import Arm
from lab.studies.ladder.analyse import MEMORY, START, Cost, Row, still_open

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH_INCHES, COSTS_INCHES, ROW_INCHES, TITLES_INCHES = 21.5, 5.6, 0.3, 3.4
MACHINE, PLAIN = "#a84a00", "#005f94"
STAIR = "#0072b2"
QUESTION = 60
GLANCE_INCHES = 10.5, 9.6
GLANCE = "ladder-glance"
COLUMNS = "each column adds one mechanism, or takes another kernel than the host's"
MARGIN_COLUMNS = 2.6
"""Right of the matrix, for how many each step stops."""

OPEN = "open"
PANELS = (
    (START, "until the application runs", "seconds"),
    (MEMORY, "memory of its own: anonymous, shared, and the kernel's on its behalf", "bytes"),
)


def draw(
    loaded: Loaded, costs: Mapping[tuple[str, str], Cost], rows: Sequence[Row], directory: Path
) -> tuple[Path, Path]:
    """ladder.png and ladder.svg in ``directory``. Questions that nobody could tell here have no row, but a number."""
    rows, asked = [row for row in rows if row.stopped_by is not None], len(rows)
    untold = f"; {asked - len(rows)} could not be told here" if len(rows) < asked else ""
    height = COSTS_INCHES + TITLES_INCHES + ROW_INCHES * len(rows)
    ratios = [COSTS_INCHES / 2, COSTS_INCHES / 2, max(1.0, ROW_INCHES * len(rows))]
    with style.canvas(WIDTH_INCHES, height, nrows=3, ncols=1, sharex=True, gridspec_kw={"height_ratios": ratios}) as (
        figure,
        (start, memory, matrix),
    ):
        for axes, (quantity, title, unit) in zip((start, memory), PANELS, strict=True):
            _costs(axes, loaded, costs, quantity, unit)
            axes.set_title(f"{title}  (logarithmic; below each: the step)", fontsize=14)
        _titles(start, loaded)
        _matrix(matrix, loaded, rows)
        _legend(figure)
        style.headline(
            figure,
            f"The ladder: what stops what, and what it costs – {loaded.run.title or loaded.run.scenario}",
            f"{COLUMNS}; questions in the order they are stopped in{untold}",
        )
        return style.save(figure, directory, "ladder")


def draw_at_a_glance(
    loaded: Loaded, costs: Mapping[tuple[str, str], Cost], rows: Sequence[Row], directory: Path
) -> tuple[Path, Path]:
    """ladder-glance.png and .svg in ``directory``: costs, and how many questions reach the host on each rung."""
    panels = [*PANELS, (OPEN, "", "")] if rows else list(PANELS)
    width, height = GLANCE_INCHES
    with style.canvas(width, height * len(panels) / 3, nrows=len(panels), ncols=1, sharex=True) as (figure, axes):
        for each, (quantity, title, unit) in zip(axes, panels, strict=True):
            if quantity == OPEN:
                _how_many(each, loaded, rows)
                continue
            _costs(each, loaded, costs, quantity, unit)
            each.set_title(f"{title}  (logarithmic)", fontsize=14)
        axes[-1].set_xlim(-0.6, len(loaded.all_arms) - 0.4)
        axes[-1].set_xticks(
            range(len(loaded.all_arms)), [_name(place, arm) for place, arm in enumerate(loaded.all_arms, 1)],
            rotation=38, ha="right", fontsize=13,
        )  # fmt: skip
        axes[-1].tick_params(axis="x", length=0, labelbottom=True)
        style.headline(
            figure,
            "The ladder: what each mechanism stops, and costs",
            f"{loaded.run.title or loaded.run.scenario}; {COLUMNS}",
        )
        return style.save(figure, directory, GLANCE)


def _name(place: int, arm: Arm) -> str:
    note = f" ({arm.accelerator.value.upper()})" if arm.accelerator is not Accelerator.NATIVE else ""
    return f"{place}  {arm.title}{note}"


def _how_many(axes: Axes, loaded: Loaded, rows: Sequence[Row]) -> None:
    """A bar for each rung that was asked: as many as reach the host."""
    fill, ink, _ = style.REACH["open"]
    for place in range(len(loaded.all_arms)):
        if all(row.cells[place] is None for row in rows):
            axes.text(place, 0.5, "not\nasked", ha="center", va="bottom", color=style.QUIET)
            continue
        count = still_open(rows, place)
        axes.bar([place], [count], width=0.72, facecolor=fill, edgecolor=ink)
        axes.annotate(
            str(count), (place, count), xytext=(0, 4), textcoords="offset points", ha="center", fontsize=13,
            fontweight="bold", color=ink,
        )  # fmt: skip
    axes.set_title(f"questions that still reach the host, of {len(rows)}", fontsize=14)
    axes.set_ylim(0, len(rows) * 1.1)
    axes.grid(False, axis="x")


def _costs(axes: Axes, loaded: Loaded, costs: Mapping[tuple[str, str], Cost], quantity: str, unit: str) -> None:
    known = []
    for place, arm in enumerate(loaded.all_arms):
        cost = costs[arm.label, quantity]
        colour = MACHINE if arm.has_own_kernel else PLAIN
        if not cost.n:
            axes.text(place, 0.5, str(cost).replace(" ", "\n"), transform=axes.get_xaxis_transform(), ha="center")
            continue
        reach = [[0.0], [0.0]]
        if not math.isnan(cost.low):
            reach = [[max(0.0, cost.median - cost.low)], [max(0.0, cost.high - cost.median)]]
        axes.errorbar(
            [place], [cost.median], yerr=reach, fmt="o", color=colour, markersize=9, elinewidth=2.4, capsize=5
        )
        over = max(cost.median, 0.0 if math.isnan(cost.high) else cost.high)
        known += [over, cost.median if math.isnan(cost.low) or cost.low <= 0 else min(cost.median, cost.low)]
        axes.annotate(
            format_value(cost.median, unit, 3), (place, over), xytext=(0, 7), textcoords="offset points",
            ha="center", fontsize=12.5, fontweight="bold", color=colour,
        )  # fmt: skip
        axes.text(
            place, 0.04, cost.glance, transform=axes.get_xaxis_transform(), ha="center", fontsize=11.5,
            color=style.INK if cost.is_sure else style.QUIET,
        )  # fmt: skip
    axes.set_yscale("log")
    if known:
        room = (max(known) / min(known)) ** 0.22  # above for a number, below for the step
        axes.set_ylim(min(known) / max(room, 2.0), max(known) * max(room, 2.0))
    style.logarithmic(axes.yaxis, unit)
    _few_ticks(axes, unit, max(known) / min(known) if known else 1.0)
    axes.grid(True, axis="y")
    axes.grid(False, axis="x")
    axes.tick_params(axis="x", length=0, labelbottom=False)


def _few_ticks(axes: Axes, unit: str, span: float) -> None:
    """Powers of four for bytes, of ten where machines stand beside processes."""
    from matplotlib.ticker import LogLocator

    if unit == "bytes":
        axes.yaxis.set_major_locator(LogLocator(base=4))
    elif span > 100:
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0,)))


def _titles(axes: Axes, loaded: Loaded) -> None:
    """The rungs' names stand above the whole figure, where the eye starts."""
    for place, arm in enumerate(loaded.all_arms):
        colour = MACHINE if arm.has_own_kernel else style.INK
        axes.text(
            place, 1.16, _name(place + 1, arm), transform=axes.get_xaxis_transform(),
            rotation=38, ha="left", va="bottom", fontsize=13.5, fontweight="bold", color=colour,
        )  # fmt: skip


def _matrix(axes: Axes, loaded: Loaded, rows: Sequence[Row]) -> None:
    from matplotlib.patches import Rectangle

    arms = loaded.all_arms
    for y, row in enumerate(rows):
        for x, cell in enumerate(row.cells):
            if cell is None:
                continue
            fill, ink, symbol = style.REACH[cell.reach]
            axes.add_patch(Rectangle((x - 0.46, y - 0.42), 0.92, 0.84, facecolor=fill, edgecolor="none"))
            weight = "bold" if cell.changed else "normal"
            look: dict[str, Any] = {"ha": "center", "va": "center", "fontweight": weight, "color": ink}
            axes.text(x, y, symbol, fontsize=14 if cell.changed else 10.5, alpha=1 if cell.changed else 0.75, **look)
            if cell.changed:
                axes.add_patch(Rectangle((x - 0.46, y - 0.42), 0.92, 0.84, fill=False, edgecolor=ink, linewidth=2.2))
    _stair(axes, [arm.label for arm in arms], rows)
    _brackets(axes, loaded, rows)
    axes.set_yticks(
        range(len(rows)), [shorten(row.question, QUESTION, placeholder=" …") for row in rows], fontsize=12
    )
    axes.tick_params(axis="both", length=0)
    axes.set_xticks(
        range(len(arms)),
        [f"{place}  {arm.label}" for place, arm in enumerate(arms, 1)],
        rotation=38,
        ha="right",
        fontsize=12,
    )
    axes.set_xlim(-0.6, len(arms) - 1 + MARGIN_COLUMNS)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.grid(False)


def _stair(axes: Axes, labels: Sequence[str], rows: Sequence[Row]) -> None:
    """A line along which the host gets out of reach."""
    xs, ys = [], []
    for y, row in enumerate(rows):
        if row.stopped_by is None:
            break
        x = labels.index(row.stopped_by) if row.stopped_by else len(labels)
        xs += [x - 0.5, x - 0.5]
        ys += [y - 0.5, y + 0.5]
    axes.plot(xs, ys, color=STAIR, linewidth=3.2, solid_joinstyle="round", zorder=5)


def _brackets(axes: Axes, loaded: Loaded, rows: Sequence[Row]) -> None:
    """On the right, how many questions each step stops."""
    titles = {arm.label: arm.title for arm in loaded.all_arms}
    edge = len(titles) - 0.4
    for label, members in groupby(enumerate(rows), key=lambda each: each[1].stopped_by):
        places = [place for place, _ in members]
        axes.plot([edge, edge], [places[0] - 0.36, places[-1] + 0.36], color=style.QUIET, linewidth=2)
        said = titles.get(label or "", "none of them")
        axes.text(edge + 0.12, (places[0] + places[-1]) / 2, f"{len(places)}  {said}", va="center", fontsize=11.5)


def _legend(figure: Figure) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    handles: list[Any] = [
        Patch(facecolor=fill, edgecolor=ink, label=f"{symbol} {WORDS[name]}")
        for name, (fill, ink, symbol) in style.REACH.items()
    ]
    handles.append(
        Patch(facecolor=style.PAPER, edgecolor=style.INK, linewidth=2.2, label="this step changes whether it does")
    )
    handles.append(Line2D([], [], color=STAIR, linewidth=3.2, label="from here on the host is out of reach"))
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))
