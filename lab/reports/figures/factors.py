"""Factors: what each level does to each backend, and where two of them don't simply multiply."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from lab.analysis.cubes import Cube
from lab.analysis.estimate import MARGIN
from lab.analysis.factors import BACKEND, EVERY
from lab.analysis.judge import WITHIN
from lab.analysis.quantities import format_ratio, format_value
from lab.reports import style
from lab.reports.factors import shown, subject
from lab.reports.material import Material
from lab.results.record import Arm

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_ACROSS = 3
MOST_PICTURES = 4
NARROWEST = 1.25
"""However small the effects, an axis reaches so far from 1: noise shall not look like a landslide."""
LINES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#6e6e6e", "#e69f00")
MARKERS = "osD^vP"

Row = Mapping[str, Any]


def draw(material: Material, keep: Callable[[Figure], None]) -> str:
    """A panel per factor and headline quantity; a row per backend and level; ratios on a logarithmic axis."""
    rows = [row for row in _records(material.effects) if not row["other"] and row["level"] != EVERY]
    quantities = [pair for pair in shown(material) if any((row["quantity"], row["state"]) == pair for row in rows)]
    factors = list(dict.fromkeys(row["factor"] for row in rows))
    panels = [
        (pair, factor, [row for row in rows if (row["quantity"], row["state"], row["factor"]) == (*pair, factor)])
        for pair in quantities
        for start in range(0, len(factors), MOST_ACROSS)
        for factor in _filled(factors[start : start + MOST_ACROSS], min(MOST_ACROSS, len(factors)))
    ]
    columns = min(MOST_ACROSS, len(factors))
    lines = [max(len(panel[2]) for panel in panels[at : at + columns]) for at in range(0, len(panels), columns)]
    heights = [1.0 + 0.62 * count for count in lines]
    with style.canvas(
        14.2, 1.7 + sum(heights), nrows=len(lines), ncols=columns, squeeze=False, height_ratios=heights
    ) as (figure, grid):
        for axes, (pair, factor, effects) in zip(grid.flat, panels, strict=True):
            if not effects:
                axes.set_axis_off()
                continue
            _panel(axes, material, effects)
            name = subject(material, *pair)
            against = "the first" if len({row["against"] for row in effects}) > 1 else effects[0]["against"]
            axes.set_title(f"{factor} on {name}\n÷ {against}", fontsize=14)
        style.headline(
            figure, "What each factor does",
            "ratio to the factor's first level, averaged over the others · 95 % intervals · filled: claimed, "
            f"hollow: not · grey: the same within {WITHIN}",
        )  # fmt: skip
        keep(figure)
    return "Main effects of the factors. " + " ".join(
        _sentence(material, row) for panel in panels for row in panel[2]
    )


def _filled(names: Sequence[str], width: int) -> list[str]:
    return [*names, *[""] * (width - len(names))]


def _panel(axes: Axes, material: Material, effects: Sequence[Row]) -> None:
    reach = reach_of(effects)
    axes.axvspan(1 / MARGIN, MARGIN, color=style.RULE, alpha=0.5, linewidth=0)
    axes.axvline(1, color=style.INK, linewidth=1.2)
    for row, effect in enumerate(effects):
        _effect(axes, row, effect, _arm(material, effect["backend"]), reach)
    axes.set_xscale("log")
    axes.set_xlim(1 / reach**1.25, reach**1.25)
    ticks = [tick for tick in ticks_of(reach) if 1 / reach**1.25 <= tick <= reach**1.25]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.tick_params(axis="x", labelsize=13)
    axes.minorticks_off()
    several = len({row["level"] for row in effects}) > 1
    axes.set_yticks(
        range(len(effects)), [f"{row['backend']} {row['level']}" if several else row["backend"] for row in effects]
    )
    for tick, effect in zip(axes.get_yticklabels(), effects, strict=True):
        tick.set_color(style.ink(_arm(material, effect["backend"])))
        tick.set_fontweight("bold")
    axes.tick_params(axis="y", length=0, labelsize=13)
    axes.set_ylim(len(effects) - 0.35, -0.65)


def ticks_of(reach: float) -> tuple[float, ...]:
    """A few round ratios for an axis that goes so far from 1."""
    if reach < 2:
        return (0.8, 1.0, 1.25) if reach < 1.5 else (0.6, 1.0, 1.6)
    return (0.25, 0.5, 1.0, 2.0, 4.0) if reach < 8 else (0.01, 0.1, 1.0, 10.0, 100.0)


def reach_of(effects: Sequence[Row]) -> float:
    """How far from 1 an axis goes that shows all of them."""
    return max(NARROWEST, *(_reach(row) for row in effects))


def _reach(row: Row) -> float:
    """How far from 1 its interval goes, at most four times as far as the effect itself."""
    ratio = max(row["ratio"], 1 / row["ratio"]) if row["ratio"] > 0 else 1.0
    ends = [max(end, 1 / end) for end in (row["low"], row["high"]) if end > 0 and math.isfinite(end)]
    return float(min(max([ratio, *ends]), max(4.0, ratio**2)))


def _effect(axes: Axes, row: int, effect: Row, arm: Arm, reach: float) -> None:
    if math.isnan(effect["ratio"]):
        axes.text(1, row, "not measured", ha="center", va="center", color=style.QUIET, fontsize=12)
        return
    colour = style.colour(arm)
    if not math.isnan(effect["low"]):
        ends = [min(max(end, 1 / reach**1.25), reach**1.25) for end in (effect["low"], effect["high"])]
        axes.plot(ends, [row, row], color=colour, linewidth=3, solid_capstyle="butt")
    face = colour if effect["claim"] else style.PAPER
    axes.plot(
        effect["ratio"], row, marker=style.marker(arm), markersize=11, markerfacecolor=face, markeredgecolor=colour,
        markeredgewidth=2, linestyle="none",
    )  # fmt: skip
    weight = "bold" if effect["claim"] else "normal"
    axes.annotate(
        format_ratio(effect["ratio"]), (effect["ratio"], row), xytext=(0, 9), textcoords="offset points", ha="center",
        fontsize=12.5, fontweight=weight,
    )  # fmt: skip


def interactions(material: Material, keep: Callable[[Figure], None]) -> str:
    """A panel per claimed interaction: a line per level of the one factor, over the levels of the other."""
    found = claimed(material)
    columns = min(2, len(found))
    lines = -(-len(found) // columns)
    with style.canvas(14.2, 1.6 + 4.2 * lines, nrows=lines, ncols=columns, squeeze=False) as (figure, grid):
        for axes, (cube, one, two) in zip(grid.flat, found, strict=False):
            _lines(axes, material, cube, one, two)
        for spare in grid.flat[len(found) :]:
            spare.set_axis_off()
        style.headline(
            figure, "Where factors interact",
            "geometric means over blocks and the other factors · parallel lines would be effects that multiply",
        )  # fmt: skip
        keep(figure)
    return "Interactions. " + " ".join(
        f"{cube.factors[one][0]} and {cube.factors[two][0]} on {subject(material, cube.quantity, cube.state)} of "
        f"{cube.backend}: {_means_in_words(cube, one, two)}."
        for cube, one, two in found
    )


def claimed(material: Material) -> list[tuple[Cube, int, int]]:
    """The cubes in which two factors surely interact, and which two, the surest first."""
    table = material.effects
    sure = table[table["claim"] & (table["other"] != "") & (table["other"] != BACKEND)].sort_values("adjusted")
    found: dict[tuple[str, str, str, int, int], tuple[Cube, int, int]] = {}
    for row in _records(sure):
        for cube in material.cubes:
            if (cube.backend, cube.quantity, cube.state) == (row["backend"], row["quantity"], row["state"]):
                names = [name for name, _ in cube.factors]
                pair = names.index(row["factor"]), names.index(row["other"])
                found.setdefault((cube.backend, cube.quantity, cube.state, *pair), (cube, *pair))
    return list(found.values())[:MOST_PICTURES]


def _lines(axes: Axes, material: Material, cube: Cube, one: int, two: int) -> None:
    (name, levels), (other, other_levels) = cube.factors[one], cube.factors[two]
    for index, values in enumerate(cube.means(one, two)):
        colour = LINES[index % len(LINES)]
        axes.plot(
            range(len(values)),
            values,
            color=colour,
            marker=MARKERS[index % len(MARKERS)],
            markersize=10,
            linewidth=2.5,
        )
        axes.annotate(
            f"{name}={levels[index]}", (len(values) - 1, values[-1]), xytext=(12, 0), textcoords="offset points",
            va="center", color=colour, fontsize=13, fontweight="bold",
        )  # fmt: skip
    axes.set_yscale("log")
    _round_ticks(axes, cube.unit)
    axes.grid(True, axis="y")
    axes.set_xticks(range(len(other_levels)), [f"{other}={level}" for level in other_levels])
    axes.set_xlim(-0.25, len(other_levels) - 0.35)
    axes.set_title(f"{subject(material, cube.quantity, cube.state)} of {cube.backend}")


def _round_ticks(axes: Axes, unit: str) -> None:
    """A few round numbers of the unit that the values are written in, on a logarithmic axis that spans little."""
    from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator

    low, high = axes.get_ylim()
    scale = 1024.0 ** int(math.log(high, 1024)) if unit == "bytes" and high >= 1024 else 1.0
    ticks = [tick * scale for tick in MaxNLocator(nbins=5).tick_values(low / scale, high / scale)]
    axes.yaxis.set_major_locator(FixedLocator([tick for tick in ticks if low <= tick <= high]))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(lambda value, _: format_value(value, unit))


def _means_in_words(cube: Cube, one: int, two: int) -> str:
    (name, levels), (other, other_levels) = cube.factors[one], cube.factors[two]
    table = cube.means(one, two)
    return ", ".join(
        f"{name}={level} with {other}={other_level} {format_value(float(table[row, column]), cube.unit)}"
        for row, level in enumerate(levels)
        for column, other_level in enumerate(other_levels)
    )


def effects_data(material: Material) -> str:
    """Every effect, those of interactions among them, as CSV."""
    return str(material.effects.to_csv(index=False))


def interactions_data(material: Material) -> str:
    """The means that are drawn, as CSV."""
    rows = [
        {
            "backend": cube.backend, "quantity": cube.quantity, "state": cube.state, "factor": cube.factors[one][0],
            "level": level, "other": cube.factors[two][0], "other_level": other_level,
            "value": cube.means(one, two)[row, column], "unit": cube.unit,
        }
        for cube, one, two in claimed(material)
        for row, level in enumerate(cube.factors[one][1])
        for column, other_level in enumerate(cube.factors[two][1])
    ]  # fmt: skip
    return str(pd.DataFrame(rows).to_csv(index=False))


def _records(table: pd.DataFrame) -> list[Row]:
    return [{str(key): value for key, value in row.items()} for row in table.to_dict("records")]


def _arm(material: Material, backend: str) -> Arm:
    return next(arm for arm in material.arms if arm.backend == backend)


def _sentence(material: Material, row: Row) -> str:
    sure = "" if row["claim"] else " (not claimed)"
    return (
        f"{row['factor']}={row['level']} on {subject(material, row['quantity'], row['state'])} of {row['backend']}: "
        f"{format_ratio(row['ratio'])}{sure}."
    )
