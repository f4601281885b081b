"""Write a run's report into its folder: pictures, report.html, report.md, and what other programs read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lab.errors import UsageError
from lab.reports.figures import draw_all
from lab.reports.material import Material
from lab.reports.page.render import put, writing
from lab.studies.compare.report.document import html, markdown

FORMATS = ("html", "md")
"""What is written unless something else is asked for."""
PLOTS = "plots"


SLIDES = "slides"
WITH_PICTURES = (*FORMATS, SLIDES, "pdf")
"""The formats that people read. Data for other programs takes no drawing, which is most of the time of a report."""


def write(run_folder: Path, formats: Sequence[str] = FORMATS) -> list[Path]:
    """Everything is made from the folder alone; an older report is replaced. Returns what was written. Pictures are
    drawn for what people read (`WITH_PICTURES`), and for data alone none.

    Raises UsageError for an unknown format, ResultsError when the folder can't be read or written.
    """
    from lab.reports.export.formats import EXPORTS

    _require(formats, (*FORMATS, SLIDES, *EXPORTS))
    material = Material.read(run_folder)
    with writing(run_folder):
        for_people = any(name in WITH_PICTURES for name in formats)
        drawn = list(draw_all(material, run_folder / PLOTS)) if for_people else []
        written = [path for each in drawn for path in each.files]
        for name, render in (("html", html), ("md", markdown)):
            if name in formats or (name == "html" and "pdf" in formats):
                written.append(put(run_folder / f"report.{name}", render(material, drawn)))
        if SLIDES in formats:
            from lab.studies.compare.report.slides import slides

            written.append(put(run_folder / "slides.html", slides(material, [each.chart for each in drawn])))
        for name, export in EXPORTS.items():
            if name in formats:
                written += export(material, run_folder)
    return written


def write_hidden(run_folder: Path, formats: Sequence[str] = ("html",)) -> list[Path]:
    """predict.html, and predict-slides.html where slides are asked for: axes, backends, questions, and no result.

    What the folder holds already, stays. Raises as `write` does.
    """
    from lab.studies.compare.report.predict import hidden, page
    from lab.studies.compare.report.slides import blank_slides

    _require(formats, ("html", SLIDES), " without results")
    material = Material.read(run_folder)
    empty = hidden(material)
    with writing(run_folder):
        written = [put(run_folder / "predict.html", page(material, empty))] if "html" in formats else []
        if SLIDES in formats:
            written.append(put(run_folder / "predict-slides.html", blank_slides(material, empty)))
    return written


def _require(formats: Sequence[str], known: Sequence[str], what: str = "") -> None:
    unknown = sorted(set(formats) - set(known))
    if unknown:
        raise UsageError(f"unknown report format{what}: {', '.join(unknown)}", hint=f"known: {', '.join(known)}")
