"""The scenario's own work: a panel per figure that its client or job printed."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from lab.analysis.quantities import format_value
from lab.reports import style
from lab.reports.charts import Chart, bars
from lab.reports.figures.bars import panel
from lab.reports.material import Material, stamped

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_PANELS = 6


def draw(material: Material, keep: Callable[[Figure], None]) -> str:
    """Two panels a row, the scenario's figures first, each with its own linear scale from zero."""
    shown = _shown(material)
    columns = min(2, len(shown))
    rows = -(-len(shown) // columns)
    arms = material.arms
    height = 1.7 + rows * (1.2 + 0.72 * len(arms))
    with style.canvas(14.2, height, nrows=rows, ncols=columns, squeeze=False) as (figure, grid):
        for index, quantity in enumerate(shown):
            axes = grid[index // columns][index % columns]
            panel(axes, material, arms, quantity)
            style.backend_axis(axes, arms)
            if index % columns:
                axes.set_yticklabels([])
            axes.set_title(_title(material, quantity))
            axes.locator_params(axis="x", nbins=4)
            style.ticks(axes.xaxis, material.unit(quantity))
        for spare in grid.flat[len(shown) :]:
            spare.set_axis_off()
        style.headline(
            figure, "How the scenario's own work went",
            "medians with 95 % intervals · a scale per panel · striped: TCG emulation, says nothing about KVM",
        )  # fmt: skip
        keep(figure)
    return "The scenario's own work. " + " ".join(_sentence(material, quantity) for quantity in shown)


def chart(material: Material) -> Chart:
    """The same panels for the page's script."""
    return Chart(
        title="How the scenario's own work went", how="medians with 95 % intervals · a scale per panel",
        panels=tuple(bars(material, quantity, _title(material, quantity)) for quantity in _shown(material)),
    )  # fmt: skip


def _shown(material: Material) -> list[str]:
    names = [*material.figures, "work.seconds", "work.cpu"]
    return [name for name in names if material.has(name)][:MOST_PANELS]


def _title(material: Material, quantity: str) -> str:
    better = "longer" if material.more_is_better(quantity) else "shorter"
    return f"{material.label(quantity)}: {better} is better"


def _sentence(material: Material, quantity: str) -> str:
    parts = []
    for arm in material.arms:
        value = material.value(quantity, arm.label)
        if value is not None:
            parts.append(f"{stamped(arm)} {format_value(value.median, value.unit)}")
    return f"{material.label(quantity)}: {', '.join(parts)}."
