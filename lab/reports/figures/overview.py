"""The one picture that everyone understands: what each boundary costs, and what it stops."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from lab.analysis.quantities import format_value
from lab.analysis.readiness import leading
from lab.analysis.readiness import title as title_of
from lab.reports import style
from lab.reports.answers import WORDS, Probe, matrix
from lab.reports.charts import Chart, Data, Panel, bars, whose
from lab.reports.figures.bars import panel
from lab.reports.material import Material, own_kernel, stamp, stamped
from lab.results.record import Arm

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COSTS = (
    ("memory.pss", "idle", "memory (PSS, idle)", "MiB"),
    ("cpu.per_1000_requests", "", "CPU, 1,000 requests", "s"),
)
SCALES = {"s": 1.0, "MiB": 1024.0**2}

ORDER = ("open", "own", "closed", "unknown")
"""Of the squares."""

MOST_IN_A_LINE = 12
MOST_LINES = 4
"""More squares than fit so many lines make the lines longer: flatter squares could not be told apart."""


def draw(material: Material, keep: Callable[[Figure], None]) -> str:
    """A row per backend; a panel per cost, bars from zero, and a strip of the isolation answers."""
    arms = material.arms
    costs = _costs(material)
    probes = matrix(material)
    widths = [1.0] * len(costs) + ([1.4] if probes else [])
    with style.canvas(
        14.2, 2.5 + 1.1 * len(arms), ncols=max(1, len(widths)), width_ratios=widths or [1], squeeze=False
    ) as (
        figure,
        grid,
    ):
        for index, (quantity, state, title, unit) in enumerate(costs):
            axes = grid[0][index]
            panel(axes, material, arms, quantity, state, ratio=True)
            axes.set_title(title)
            if unit in SCALES:
                axes.set_xlabel(unit)
                _ticks(axes, SCALES[unit])
            else:
                axes.locator_params(axis="x", nbins=3)
                style.ticks(axes.xaxis, unit)
            _rows(axes, material, first=index == 0)
        if probes:
            _strip(grid[0][-1], material)
            _rows(grid[0][-1], material, first=not costs)
        if not widths:
            grid[0][0].set_axis_off()
        style.headline(figure, "What each boundary costs, and what it stops", _subtitle(material))
        keep(figure)
    return "Costs and isolation per backend. " + " ".join(_sentences(material, costs))


def chart(material: Material) -> Chart:
    """The same panels for the page's script."""
    panels = [bars(material, quantity, title, state, noted=True) for quantity, state, title, _ in _costs(material)]
    probes = matrix(material)
    if probes:
        rows = tuple(whose(arm) | {"squares": _squares(probes, arm)} for arm in material.arms)
        legend = tuple((fill, f"{symbol} {WORDS[reach]}") for reach, (fill, _, symbol) in style.REACH.items())
        title = f"{len(probes)} questions inside"
        panels.append(Panel(kind="squares", title=title, rows=rows, legend=legend))
    return Chart(title="What each boundary costs, and what it stops", how=_subtitle(material), panels=tuple(panels))


def _squares(probes: Sequence[Probe], arm: Arm) -> list[Data]:
    asked = [(probe, probe.cells[arm.label]) for probe in probes if arm.label in probe.cells]
    asked.sort(key=lambda each: ORDER.index(each[1].reach))
    return [
        {
            "fill": style.REACH[cell.reach][0],
            "ink": style.REACH[cell.reach][1],
            "symbol": style.REACH[cell.reach][2],
            "framed": cell.unexpected,
            "tip": [
                f"{arm.label} · {stamp(arm)}", probe.question, f"{cell.answer}: {WORDS[cell.reach]}",
                *([f"stopped by: {cell.mechanism}"] if cell.mechanism not in ("", "none") else []),
                *(["not what was expected"] if cell.unexpected else []),
            ],
        }
        for probe, cell in asked
    ]  # fmt: skip


def _costs(material: Material) -> list[tuple[str, str, str, str]]:
    first = (leading(material.run), "", title_of(material.run), "s")
    own = [(name, "", material.label(name), material.unit(name)) for name in list(material.figures)[:1]]
    asked = (first, *COSTS, *own)
    return [cost for cost in asked if any(material.value(cost[0], arm.label, cost[1]) for arm in material.arms)]


def _ticks(axes: Axes, scale: float) -> None:
    """A few round numbers of the shown unit."""
    from matplotlib.ticker import MaxNLocator

    _, high = axes.get_xlim()
    ticks = MaxNLocator(nbins=3).tick_values(0, high / scale)
    shown = [tick for tick in ticks if 0 <= tick <= high / scale]
    axes.set_xticks([tick * scale for tick in shown], [f"{tick:,g}" for tick in shown])


def _rows(axes: Axes, material: Material, *, first: bool) -> None:
    style.backend_axis(axes, material.arms)
    if first:
        names = [
            f"{arm.label}\n{f'own kernel, {stamp(arm).split()[0]}' if own_kernel(arm) else 'host kernel'}"
            for arm in material.arms
        ]
        axes.set_yticks(range(len(names)), names)
    else:
        axes.set_yticklabels([])


def _strip(axes: Axes, material: Material) -> None:
    """A square per probe, grouped by class so that the eye can count without reading."""
    from matplotlib.patches import Rectangle

    probes = matrix(material)
    lines = min(MOST_LINES, -(-len(probes) // MOST_IN_A_LINE))
    width = -(-len(probes) // lines)
    height = 0.66 / lines
    for row, arm in enumerate(material.arms):
        reaches = [probe.cells[arm.label].reach for probe in probes if arm.label in probe.cells]
        reaches.sort(key=ORDER.index)
        for index, reach in enumerate(reaches):
            fill, ink, symbol = style.REACH[reach]
            x, y = index % width, row - 0.33 + height * (index // width)
            axes.add_patch(Rectangle((x + 0.06, y), 0.88, 0.9 * height, facecolor=fill, edgecolor=ink, linewidth=0.8))
            axes.text(
                x + 0.5, y + 0.45 * height, symbol, ha="center", va="center", fontsize=15 - 1.5 * lines, color=ink
            )
    axes.set_xlim(0, width)
    axes.set_xticks([])
    axes.grid(False)
    axes.spines["bottom"].set_visible(False)
    axes.set_title(f"{len(probes)} questions inside")
    used = [reach for reach in ORDER if any(cell.reach == reach for probe in probes for cell in probe.cells.values())]
    words = _pairs([f"{style.REACH[reach][2]} {WORDS[reach]}" for reach in used])
    axes.set_xlabel("\n".join(words), fontsize=13)


def _pairs(words: list[str]) -> list[str]:
    return ["   ".join(words[index : index + 2]) for index in range(0, len(words), 2)]


def _subtitle(material: Material) -> str:
    emulated = any(style.hatch(arm) for arm in material.arms)
    blocks = material.loaded.blocks
    text = f"medians of {blocks} block{'s' * (blocks != 1)} · {material.levels or 'the same image everywhere'}"
    return text + (" · striped: TCG emulation, says nothing about KVM" if emulated else "")


def _sentences(material: Material, costs: list[tuple[str, str, str, str]]) -> list[str]:
    sentences = []
    for arm in material.arms:
        parts = ["own kernel" if own_kernel(arm) else "host's kernel"]
        for quantity, state, title, _ in costs:
            value = material.value(quantity, arm.label, state)
            parts.append(f"{title} {format_value(value.median, value.unit) if value else 'not measured'}")
        sentences.append(f"{stamped(arm)}: {', '.join(parts)}.")
    return sentences
