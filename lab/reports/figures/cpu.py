"""CPU: what the host spends to boot an instance, to answer, to do nothing, and for a fixed computation."""

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

PANELS = {
    "cpu.boot": "CPU seconds",
    "cpu.per_1000_requests": "CPU seconds per 1,000 requests",
    "cpu.idle": "CPU seconds per second",
    "cpu.compute": "seconds",
}


def draw(material: Material, keep: Callable[[Figure], None]) -> str:
    """Up to four panels, each with its own linear scale from zero."""
    shown = [quantity for quantity in PANELS if material.has(quantity)]
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
            axes.set_title(f"{material.label(quantity)}: shorter is better")
            axes.set_xlabel(PANELS[quantity])
            axes.locator_params(axis="x", nbins=5)
        for spare in grid.flat[len(shown) :]:
            spare.set_axis_off()
        style.headline(
            figure, "What it costs the host in CPU",
            "medians with 95 % intervals · a scale per panel · striped: TCG emulation, says nothing about KVM",
        )  # fmt: skip
        keep(figure)
    return "CPU cost. " + " ".join(_sentence(material, quantity) for quantity in shown)


def chart(material: Material) -> Chart:
    """The same panels for the page's script."""
    return Chart(
        title="What it costs the host in CPU", how="medians with 95 % intervals · a scale per panel",
        panels=tuple(
            bars(material, quantity, f"{material.label(quantity)}: shorter is better", axis=words)
            for quantity, words in PANELS.items()
            if material.has(quantity)
        ),
    )  # fmt: skip


def _sentence(material: Material, quantity: str) -> str:
    parts = []
    for arm in material.arms:
        value = material.value(quantity, arm.label)
        if value is not None:
            parts.append(f"{stamped(arm)} {format_value(value.median, value.unit)}")
    return f"{material.label(quantity)}: {', '.join(parts)}."
