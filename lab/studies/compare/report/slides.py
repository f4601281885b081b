"""A page for each figure, to be thrown onto a wall: slides.html, which is printed as slides too."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lab.reports.charts import Chart
from lab.reports.drawing import looks_of, projected
from lab.reports.material import Material
from lab.reports.page.render import embedded_text, render
from lab.studies.compare.report.verdict import gravest_first, verdict

HEIGHT = 575.0
"""Of a slide in points, as it is 1,022 wide: nine by sixteen."""


def slides(material: Material, charts: Sequence[Chart]) -> str:
    """The verdict, then a slide for each chart. Raises nothing that drawing them doesn't."""
    found = gravest_first(material.findings)
    return _page(material, charts, {"warning": found[0] if found else None, "verdict": verdict(material)})


def blank_slides(material: Material, charts: Sequence[Chart]) -> str:
    """The same of charts that tell no result: see `lab.studies.compare.report.predict`."""
    return _page(material, charts, {"warning": None, "verdict": ()})


def _page(material: Material, charts: Sequence[Chart], told: dict[str, Any]) -> str:
    run = material.run
    pictures = [{"src": _drawn(material, chart), "alt": chart.alt, "title": chart.title} for chart in charts]
    context = {"run": run, "arms": [arm.label for arm in material.arms], "pictures": pictures} | told
    return render("slides.html.j2", context, styles=("slides.css",), scripts=("slides.js",))


def _drawn(material: Material, chart: Chart) -> str:
    return embedded_text("image/svg+xml", projected(chart, looks_of(material.loaded.all_arms), HEIGHT))
