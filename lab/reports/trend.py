"""One quantity over many runs: a figure and its data."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from lab.analysis.quantities import label
from lab.reports import style

DASHES = ("-", "--", ":", "-.")
"""A scenario's, when several are drawn."""

MARKED = 400
"""Up to so many runs each gets a marker; beyond, a line alone is drawn."""


def write_trend(table: pd.DataFrame, quantity: str, directory: Path) -> list[Path]:
    """``trend-QUANTITY.csv``, ``.png`` and ``.svg`` below ``directory``, from `lab.analysis.many.trend`'s table.

    A line per scenario, arm and state through the runs' medians, by the time at which they were started: what one
    application takes says nothing of another. A/A twins are in the data alone.
    """
    directory.mkdir(parents=True, exist_ok=True)
    name = f"trend-{quantity.replace('/', '-')}"
    data = directory / f"{name}.csv"
    table.to_csv(data, index=False)
    unit = str(table["unit"].iloc[0])
    drawn = table[~table["arm"].str.endswith("#aa") & table["median"].notna()]
    with style.canvas(14.2, 7.0) as (figure, axes):
        scenarios = list(dict.fromkeys(drawn["scenario"]))
        for (scenario, arm, state), line in drawn.groupby(["scenario", "arm", "state"], sort=False):
            colour, _, marker = style.BACKENDS.get(str(line["backend"].iloc[0]), style.OTHER)
            words = (scenario if len(scenarios) > 1 else "", arm, state)
            axes.plot(
                line["started"], line["median"], color=colour, linewidth=1.4, markersize=7,
                linestyle=DASHES[scenarios.index(scenario) % len(DASHES)],
                marker=marker if len(line) <= MARKED else "", label=", ".join(str(word) for word in words if word),
            )  # fmt: skip
        if not drawn.empty:
            axes.set_yscale("log")
            style.logarithmic(axes.yaxis, unit)
            figure.legend(*axes.get_legend_handles_labels(), loc="outside right upper")
        axes.grid(axis="y", visible=True)
        axes.tick_params(axis="x", rotation=30)
        style.headline(
            figure, f"{label(quantity)}: {table['run'].nunique():,} runs", "the median of each run's blocks"
        )
        return [data, *style.save(figure, directory, name)]
