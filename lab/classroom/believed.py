"""A page of what a class believed before and after: one file, no names, nothing fetched."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lab.classroom.marks import Marked, believed
from lab.classroom.session.histogram import Axis, label
from lab.classroom.session.store import Store

TEMPLATES = Path(__file__).parent / "templates"
WIDEST_PERCENT = 80


def page(store: Store, found: Sequence[Marked]) -> str:
    """The page as HTML."""
    from markupsafe import Markup

    from lab.reports.page.render import render

    material = store.get("material")
    told = [
        each
        | {"rows": _rows(store, place, each)}
        | {key: Markup(each["question"][key]) for key in ("text", "explanation")}  # lab's own rendering of Markdown
        for place, each in enumerate(believed(store, found))
    ]
    context = {key: material[key] for key in ("title", "day", "where", "run")} | {
        "students": len(found),
        "told": told,
    }
    return render("believed.html.j2", context, styles=("report.css", "believed.css"), beside=TEMPLATES)


def _rows(store: Store, place: int, each: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A row per choice or, of numbers, per bar in which somebody is or what was measured."""
    question, chart = each["question"], each["chart"]
    bars = chart["bars"]
    if not question["choices"]:
        answer = question["answer"]
        known = [*store.guesses(place, 1).values(), *store.guesses(place, 2).values()]
        known += [answer[name] for name in ("value", "low", "high") if answer.get(name) is not None]
        axis, value = Axis(known), chart["value"]
        bars = [
            bar
            | {"text": _range(axis, bar, question["unit"])}
            | {"right": value is not None and bar["left"] <= value < bar["left"] + bar["width"]}
            for bar in bars
        ]
        bars = [bar for bar in bars if bar["first"] or bar["second"] or bar["right"]]
    most = max([1, *(bar[vote] or 0 for bar in bars for vote in ("first", "second"))])
    return [
        bar | {f"{vote}_share": WIDEST_PERCENT * (bar[vote] or 0) / most for vote in ("first", "second")}
        for bar in bars
    ]


def _range(axis: Axis, bar: Mapping[str, Any], unit: str) -> str:
    low, high = (float(f"{axis.value(place):.3g}") for place in (bar["left"], bar["left"] + bar["width"]))
    return f"{label(low, unit)} to {label(high, unit)}"
