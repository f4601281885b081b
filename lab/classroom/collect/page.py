"""The picture as one HTML file: it fetches nothing, and has no script."""

from __future__ import annotations

from pathlib import Path

from lab.classroom.collect import tables
from lab.classroom.collect.agreement import Collected, shared
from lab.classroom.collect.picture import chart, drawn
from lab.reports.page.render import embedded_text, render

TEMPLATES = Path(__file__).parents[1] / "templates"


def html(found: Collected) -> str:
    """The page's text."""
    context = {
        "found": found,
        "picture": embedded_text("image/svg+xml", drawn(found, "svg").decode()),
        "alt": chart(found).alt,
        "agreements": tables.as_table("Each ratio, by what the hosts are", tables.agreements(found)),
        "hosts": tables.as_table("What each run was measured on", tables.hosts(found)),
        "ratios": [
            tables.as_table(f"{name}: times {found.baseline} of the same run", tables.of_quantity(found, *key))
            for key, name in tables.quantities(found).items()
        ],
        "answers": tables.as_table("Who found what", [("PROBE", "ARM", "WHO FOUND WHAT"), *found.answers]),
        "left_out": tables.as_table("Why it is not there", [("HANDED IN BY", "WHY"), *found.left_out]),
        "shared": list(shared(found.lines).values()),
        "not_to_conclude": tables.NOT_TO_CONCLUDE,
    }
    return render("collected.html.j2", context, styles=("report.css", "collected.css"), beside=TEMPLATES)
