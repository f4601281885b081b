"""What there is to look at of a run after a reveal: its race, the report's figure for the question, its whole report.

All of it is made before anything is served, as the answers are: `lab.classroom.questions.material`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lab.analysis.readiness import leading
from lab.classroom.questions.expressions import Expression, Form
from lab.classroom.questions.lesson import Lesson
from lab.errors import ResultsError

FIGURES = {
    "boot.": "boot-phases",
    "boot.total": "boot-distribution",
    "memory.": "memory",
    "cpu.": "cpu",
    "load.": "load",
    "work.": "work",
    "crossings.": "crossings",
    "debt.": "debt",
}
"""The report's figure of a quantity: the one below the longest beginning of its name."""
HEIGHT = 490.0
"""Of a figure in points, as it is 1,022 wide: what a projector's page has between its head and its foot."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A picture as SVG, and in words what it shows."""

    svg: bytes
    alt: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Showing:
    """``report`` and ``race`` are pages, b"" where the run has none; ``figures`` are by the question's place."""

    report: bytes = b""
    race: bytes = b""
    figures: Mapping[int, Figure] = field(default_factory=dict)

    def of(self, question: int) -> tuple[str, ...]:
        """What of it can be shown after that question: some of race and figure."""
        there = {"race": bool(self.race), "figure": question in self.figures}
        return tuple(name for name, is_there in there.items() if is_there)


def as_data(found: Showing) -> dict[str, Any]:
    """As JSON holds it; without the report."""
    figures = {str(place): {"svg": each.svg.decode(), "alt": each.alt} for place, each in found.figures.items()}
    return {"race": found.race.decode(), "figures": figures}


def from_data(raw: Mapping[str, Any]) -> Showing:
    """The inverse of `as_data`."""
    figures = {int(at): Figure(svg=each["svg"].encode(), alt=each["alt"]) for at, each in raw["figures"].items()}
    return Showing(race=raw["race"].encode(), figures=figures)


def showing(lesson: Lesson, run: Path, name: str) -> Showing:
    """What the run in the folder ``run`` has to show; ``name`` is how `lab report` is told of it. Raises ResultsError
    when that is no run.
    """
    report = run / "report.html"
    return Showing(
        report=report.read_bytes() if report.is_file() else b"", race=_race(run, name), figures=_figures(lesson, run)
    )


def figure_of(asked: Expression, leads: str) -> str:
    """The name of the report's figure that shows what is asked, "" where none does. ``leads`` is the quantity that
    says how long a start took in that run.
    """
    if asked.form is Form.LONGEST:
        return "boot-phases"
    if asked.form in (Form.ANSWER, Form.COUNT):
        return "isolation"
    if asked.quantity and asked.quantity == leads:
        return "boot-distribution"
    fitting = [each for each in FIGURES if asked.quantity.startswith(each)]
    return FIGURES[max(fitting, key=len)] if fitting else ""


def _race(run: Path, name: str) -> bytes:
    from lab.classroom.race.page import html
    from lab.classroom.race.recorded import recorded

    try:
        return html(recorded(run), "", f"lab report {name}").encode()
    except ResultsError:  # it timed no start, as some studies
        return b""


def _figures(lesson: Lesson, run: Path) -> dict[int, Figure]:
    from lab.reports.drawing import looks_of, projected
    from lab.reports.figures import charts
    from lab.reports.material import Material

    material = Material.read(run)
    leads = leading(material.run)
    wanted = {place: figure_of(each.bind, leads) for place, each in enumerate(lesson.questions)}
    there = {each.name: each.chart for each in charts(material) if each.name in wanted.values()}
    looks = looks_of(material.loaded.all_arms)
    drawn = {
        name: Figure(svg=projected(chart, looks, HEIGHT).encode(), alt=chart.alt) for name, chart in there.items()
    }
    return {place: drawn[name] for place, name in wanted.items() if name in drawn}
