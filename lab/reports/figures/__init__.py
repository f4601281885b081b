"""The figures of a report: each knows its question, and says as data what is drawn and in words what that shows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from lab.reports.charts import Chart
from lab.reports.material import Material


@dataclass(frozen=True, slots=True, kw_only=True)
class Plot:
    """A figure: ``needs`` is the prefix of the quantities it shows."""

    name: str
    needs: str
    chart: Callable[[Material], Chart]
    data: Callable[[Material], str] | None = None  # its CSV, where that is not the observations of what it needs
    when: Callable[[Material], bool] | None = None  # whether there is anything to draw, where needs does not say it

    def is_drawn(self, material: Material) -> bool:
        """Whether the run has what it shows."""
        if self.needs == "isolation.":
            return not material.loaded.answers.empty
        return (not self.needs or material.has(self.needs)) and (self.when is None or self.when(material))


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """A figure and its data as CSV; as files too, unless it is drawn for a page alone."""

    name: str
    chart: Chart
    csv: str
    files: tuple[Path, ...] = ()


def plots() -> tuple[Plot, ...]:
    """Every figure, in the order of the report."""
    from lab.reports.figures import (
        boot,
        cpu,
        crossings,
        debt,
        factors,
        isolation,
        load,
        memory,
        overview,
        work,
    )

    return (
        Plot(name="overview", needs="", chart=overview.chart),
        Plot(name="boot-phases", needs="boot.", chart=boot.phases),
        Plot(name="boot-distribution", needs="boot.", chart=boot.distribution),
        Plot(name="memory", needs="memory.cgroup.", chart=memory.chart),
        Plot(name="cpu", needs="cpu.", chart=cpu.chart),
        Plot(name="load", needs="load.", chart=load.chart),
        Plot(name="work", needs="work.", chart=work.chart),
        Plot(name="crossings", needs="crossings.", chart=crossings.chart),
        Plot(name="debt", needs="debt.seconds", chart=debt.chart, data=debt.data),
        Plot(name="isolation", needs="isolation.", chart=isolation.chart),
        Plot(
            name="factors", needs="", chart=factors.main_effects, data=factors.effects_data,
            when=lambda material: not material.effects.empty,
        ),
        Plot(
            name="interactions", needs="", chart=factors.interactions, data=factors.interactions_data,
            when=lambda material: bool(factors.claimed(material)),
        ),
    )  # fmt: skip


def charts(material: Material) -> Iterator[Drawn]:
    """Every figure that the run has data for; none is drawn yet."""
    from lab.reports.export.formats import figure_data

    for plot in plots():
        if plot.is_drawn(material):
            chart = plot.chart(material)
            if any(panel.rows for panel in chart.panels):
                csv = plot.data(material) if plot.data else figure_data(material, plot.needs)
                yield Drawn(name=plot.name, chart=chart, csv=csv)


def draw_all(material: Material, directory: Path) -> Iterator[Drawn]:
    """The same, each written into ``directory`` as PNG, SVG and CSV."""
    from dataclasses import replace

    from lab.reports.drawing import looks_of, picture

    directory.mkdir(parents=True, exist_ok=True)
    looks = looks_of(material.loaded.all_arms)
    for each in charts(material):
        data = directory / f"{each.name}.csv"
        data.write_text(each.csv, encoding="utf-8")
        yield replace(each, files=(*picture(each.chart, looks, directory, each.name), data))
