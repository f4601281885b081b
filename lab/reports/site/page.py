"""The site's pages: what changed, lines, runs and a comparison on one; a page for each change."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from lab import __version__
from lab.analysis.history.changes import FEWEST, fewest_nights, nights_until_found
from lab.analysis.history.facts import plain
from lab.analysis.history.lines import Event
from lab.analysis.inference.judge import ALPHA, WITHIN, Verdict
from lab.analysis.quantities import format_ratio, format_ratios, format_value, is_key, label
from lab.analysis.questions.difference import Difference
from lab.reports.page.render import render
from lab.reports.site import words
from lab.reports.site.content import Site, day, event_file, moment, report_file, shown
from lab.reports.style import BACKENDS, OTHER, adaptive

HERE = Path(__file__).parent
STYLES = ("report.css", "site.css")
SCRIPTS = ("axes.js", "history.js", "site.js")
NEWEST_RUNS, NEWEST_EVENTS = 50, 300
"""So many stand on the page itself, for a reader without scripts; the script has all runs."""

ENOUGH_BEFORE = 100
"""So many nights before a change, for the sentence that says how many after it are needed."""


def index(site: Site, about: dict[str, Any], written: float) -> str:
    """``about`` is what the script must know: see `lab.reports.site.content.data_files`."""
    runs = [
        {
            "name": shown(run.name), "started": moment(run.started), "scenario": run.scenario, "kind": run.kind,
            "backends": ", ".join(run.backends), "accelerators": ", ".join(run.accelerators), "host": run.host,
            "lab": run.lab, "ended": run.ended_because or "not ended", "complete": run.complete,
            "page": report_file(run.name) if run.name in site.reports else "",
        }
        for run in reversed(site.runs[-NEWEST_RUNS:])
    ]  # fmt: skip
    context = {
        "site": site, "runs": runs, "events": [_event(site, each) for each in site.events[:NEWEST_EVENTS]],
        "older_events": max(0, len(site.events) - NEWEST_EVENTS), "written": moment(written), "version": __version__,
        "hosts": site.hosts, "scenarios": sorted({run.scenario for run in site.runs}),
        "unreadable": [plain(each) for each in site.unreadable], "alpha": f"{ALPHA:.0%}".replace("%", " of 100"),
        "tested": sum(len(each.runs) >= 2 * FEWEST for each in site.lines), "fewest": fewest_nights(site.level),
        "soon": nights_until_found(ENOUGH_BEFORE, site.level), "enough": ENOUGH_BEFORE,
        "dependent": sum(each.dependent for each in site.lines), "loads": True,
    }  # fmt: skip
    colours = {name: adaptive(ink) for name, (_, ink, _) in BACKENDS.items()} | {"": adaptive(OTHER[1])}
    data = about | {"colours": colours}
    return render("index.html.j2", context, styles=STYLES, scripts=SCRIPTS, data=data, beside=HERE)


def change(site: Site, event: Event, compared: Difference | str) -> str:
    """The page of one change, with what ``lab diff`` says of the runs at either side; a text where it can't."""
    rows: list[dict[str, Any]] = []
    unlike: list[str] = []
    if not isinstance(compared, str):
        rows = [_diff_row(row) for row in compared.table.to_dict("records") if is_key(str(row["quantity"]))]
        unlike = [plain(each) for each in (*compared.unlike, *filter(None, [compared.caution]))]
    context = {
        "event": _event(site, event), "refused": plain(compared) if isinstance(compared, str) else "", "rows": rows,
        "command": diff_command(site, event), "unlike": unlike, "host": site.hosts.get(event.host, ""),
    }  # fmt: skip
    return render("change.html.j2", context, styles=STYLES, beside=HERE)


def diff_command(site: Site, event: Event) -> str:
    names = [site.runs[each].name for each in (event.before, event.after)]
    words = ["lab", "diff", *(["--"] if any(name.startswith("-") for name in names) else []), *names]
    return plain(shlex.join(words))


def _event(site: Site, event: Event) -> dict[str, Any]:
    sides = {}
    for side, run in (("before", site.runs[event.before]), ("after", site.runs[event.after])):
        page = report_file(run.name) if run.name in site.reports else ""
        sides[side] = {"name": shown(run.name), "page": page, "started": moment(run.started)}
    return sides | {
        "id": event.id, "page": event_file(event), "day": day(site.runs[event.after].started),
        "scenario": event.scenario, "host": event.host, "title": words.counted(event),
        "directions": " ".join(sorted({each.direction for _, each in event.changes})),
        "backends": sorted({line.backend for line, _ in event.changes}),
        "changes": [
            {
                "arm": plain(line.arm), "what": plain(line.title), "line": line.id,
                "before": format_value(each.before, line.unit), "after": format_value(each.after, line.unit),
                "ratio": format_ratio(each.ratio), "interval": format_ratios(each.low, each.high),
                "direction": each.direction, "dependent": line.dependent,
            }
            for line, each in event.changes
        ],
        "coincidences": [words.coincidence_told(each) for each in event.coincidences[: words.MOST_COINCIDENCES]],
        "more": max(0, len(event.coincidences) - words.MOST_COINCIDENCES),
        "none": words.NO_COINCIDENCE,
    }  # fmt: skip


def _diff_row(row: dict[Any, Any]) -> dict[str, str]:
    state = f", {row['state'].replace('-', ' ')}" if row["state"] else ""
    verdict = {Verdict.SAME: f"the same within {WITHIN}", Verdict.OPEN: "not proven"}
    return {
        "arm": plain(row["arm"]), "what": f"{plain(label(str(row['quantity'])))}{state}",
        "before": format_value(row["before"], row["unit"]), "after": format_value(row["after"], row["unit"]),
        "ratio": format_ratio(row["ratio"]), "interval": format_ratios(row["low"], row["high"]) or "–",
        "verdict": "changed" if row["claim"] else verdict[Verdict(row["verdict"])],
    }  # fmt: skip
