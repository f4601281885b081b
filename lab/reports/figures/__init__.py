"""The figures of a report: each knows its question, draws itself, and can say in words what it shows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from lab.reports.charts import Chart
from lab.reports.material import Material

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, slots=True, kw_only=True)
class Plot:
    """A figure to draw: ``needs`` is the prefix of the quantities it shows."""

    name: str
    title: str
    needs: str
    draw: Callable[[Material, Callable[[Figure], None]], str]  # draws, hands the figure over, returns the alt text
    data: Callable[[Material], str] | None = None  # its CSV, where that is not the observations of what it needs
    when: Callable[[Material], bool] | None = None  # whether there is anything to draw, where needs does not say it
    chart: Callable[[Material], Chart] | None = None  # the same, as data for the page's script


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """A figure on disk, and the words for those who can't see it."""

    name: str
    title: str
    alt: str
    png: Path
    svg: Path
    csv: Path  # the observations behind it
    chart: Chart | None = None


def plots() -> tuple[Plot, ...]:
    """Every figure, in the order of the report."""
    from lab.reports.figures import boot, cpu, factorcharts, factors, isolation, load, memory, overview, work

    def plot(name: str, title: str, needs: str, module: ModuleType) -> Plot:
        return Plot(name=name, title=title, needs=needs, draw=module.draw, chart=module.chart)

    return (
        plot("overview", "What each boundary costs, and what it stops", "", overview),
        Plot(
            name="boot-phases", title="Where the time of a boot goes", needs="boot.",
            draw=boot.phases, chart=boot.phases_chart,
        ),
        Plot(
            name="boot-distribution", title="Every boot that was measured", needs="boot.",
            draw=boot.distribution, chart=boot.distribution_chart,
        ),
        plot("memory", "What the memory is", "memory.cgroup.", memory),
        plot("cpu", "What it costs in CPU", "cpu.", cpu),
        plot("load", "How it answers under load", "load.", load),
        plot("work", "How the scenario's own work went", "work.", work),
        # a page has the matrix itself instead
        Plot(name="isolation", title="What each boundary lets through", needs="isolation.", draw=isolation.draw),
        Plot(
            name="factors",
            title="What each factor does",
            needs="",
            draw=factors.draw,
            data=factors.effects_data,
            when=lambda material: not material.effects.empty,
            chart=factorcharts.main_effects,
        ),
        Plot(
            name="interactions",
            title="Where factors interact",
            needs="",
            draw=factors.interactions,
            data=factors.interactions_data,
            when=lambda material: bool(factors.claimed(material)),
            chart=factorcharts.interactions,
        ),
    )  # fmt: skip


def draw_all(material: Material, directory: Path) -> Iterator[Drawn]:
    """Write every figure the run has data for into ``directory`` as PNG and SVG, with its data as CSV."""
    from lab.reports.exports import figure_data
    from lab.reports.style import save

    directory.mkdir(parents=True, exist_ok=True)
    for plot in plots():
        answered = plot.needs == "isolation." and not material.loaded.answers.empty
        if plot.needs and not answered and not material.has(plot.needs):
            continue
        if plot.when is not None and not plot.when(material):
            continue
        files: list[tuple[Path, Path]] = []

        def keep(figure: Figure, name: str = plot.name, files: list[tuple[Path, Path]] = files) -> None:
            files.append(save(figure, directory, name))

        alt = plot.draw(material, keep)
        data = directory / f"{plot.name}.csv"
        data.write_text(plot.data(material) if plot.data else figure_data(material, plot.needs), encoding="utf-8")
        chart = plot.chart(material) if plot.chart else None
        yield Drawn(
            name=plot.name, title=plot.title, alt=alt, png=files[0][0], svg=files[0][1], csv=data, chart=chart
        )
