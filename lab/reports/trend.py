"""One quantity over many runs: a figure and its data."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from lab.analysis.quantities import label
from lab.reports import style

DASHES = ("-", "--", ":", "-.")
"""Of a scenario and of what was waited for, when several are drawn."""

MARKED = 400
"""Up to so many runs each gets a marker; beyond, a line alone is drawn."""


def write_trend(table: pd.DataFrame, quantity: str, directory: Path) -> list[Path]:
    """``trend-QUANTITY.csv``, ``.png`` and ``.svg`` below ``directory``, from `lab.analysis.many.trend`'s table.

    A line per scenario, arm and state through the runs' medians, by the time at which they were started: what one
    application takes says nothing of another. Runs whose instances were waited for differently have lines of their
    own, since even the rest of what was measured began at another moment. A/A twins are in the data alone.
    """
    directory.mkdir(parents=True, exist_ok=True)
    name = f"trend-{quantity.replace('/', '-')}"
    data = directory / f"{name}.csv"
    table.to_csv(data, index=False)
    unit = str(table["unit"].iloc[0])
    drawn = table[~table["arm"].str.endswith("#aa") & table["median"].notna()]
    with style.canvas(14.2, 7.0) as (figure, axes):
        kinds = list(dict.fromkeys(zip(drawn["scenario"], drawn["until"], strict=True)))
        several = [len({kind[place] for kind in kinds}) > 1 for place in (0, 1)]
        for (scenario, waited, arm, state), line in drawn.groupby(["scenario", "until", "arm", "state"], sort=False):
            colour, _, marker = style.BACKENDS.get(str(line["backend"].iloc[0]), style.OTHER)
            words = (scenario if several[0] else "", arm, state, f"until {waited}" if several[1] else "")
            axes.plot(
                line["started"], line["median"], color=colour, linewidth=1.4, markersize=7,
                linestyle=DASHES[kinds.index((scenario, waited)) % len(DASHES)],
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
