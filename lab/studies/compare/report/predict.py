"""A report with everything but its results: axes, backends and questions, for a class that predicts first.

Nothing here may depend on a sample's value. Rows come from the run's arms, axes from their unit alone, and questions
without their answers; a test writes the page of two runs that differ in their values only, and compares the bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any

from markupsafe import Markup

from lab.analysis.readiness import is_empty_segment
from lab.reports import tables
from lab.reports.charts import Chart, without_results
from lab.reports.drawing import inline, looks_of
from lab.reports.figures import charts
from lab.reports.material import Material, stamp
from lab.reports.page.render import render
from lab.reports.tables import Cell, Row, Table
from lab.reports.words.readiness import achieves

WIDTH, BASE = 600.0, 13.0


def hidden(material: Material) -> list[Chart]:
    """The charts that can be predicted, empty."""
    found = (without_results(each.chart) for each in charts(material))
    return [chart for chart in found if chart is not None]


def page(material: Material, empty: Sequence[Chart]) -> str:
    """predict.html: one page without a script, to be read or to be printed and written on."""
    looks = looks_of(material.loaded.all_arms)
    figures: list[dict[str, Any]] = []
    for number, chart in enumerate(empty):
        drawn = [
            Markup(inline(panel, looks, f"p{number}-{index}", chart.alt, width=WIDTH, base=BASE))
            for index, panel in enumerate(chart.panels)
        ]
        panels = [
            {"title": panel.title, "svg": svg, "legend": [words for _, words in panel.legend]}
            for panel, svg in zip(chart.panels, drawn, strict=True)
        ]
        figures.append({"title": chart.title, "how": chart.how, "panels": panels, "columns": chart.columns})
    probes = sorted({(probe.group, probe.name, probe.question) for probe in material.isolation})
    questions = [
        (group, [question for _, _, question in members]) for group, members in groupby(probes, lambda each: each[0])
    ]
    context = {
        "run": material.run, "arms": material.arms, "stamp": stamp, "figures": figures,
        "questions": questions, "numbers": _numbers(material), "achieves": achieves(material.run),
        "baseline": material.baseline,
    }  # fmt: skip
    return render("predict.html.j2", context)


def _numbers(material: Material) -> list[Table]:
    """The report's tables with a row for each quantity that was looked at, and nothing in their cells."""
    wanted = [
        ("Boot", tables.BOOT, ""),
        *((f"Memory, {state.replace('-', ' ')}", tables.MEMORY, state) for state in ("idle", "after-load")),
        ("CPU", tables.CPU, ""),
        ("Load", tables.LOAD, ""),
        ("The scenario's own work", tables.work_names(material), ""),
    ]
    columns = tables.arm_columns(material)
    blank = tuple(Cell(text="") for _ in columns)
    found = []
    for caption, names, state in wanted:
        rows = tuple(
            Row(header=material.label(name), note=material.definition(name), cells=blank)
            for name in names
            if not is_empty_segment(name, material.run)
            and any(material.attempts(name, arm.label, state) is not None for arm in material.arms)
        )
        found += [Table(caption=caption, corner="quantity", columns=columns, rows=rows)] if rows else []
    return found
