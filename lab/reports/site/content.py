"""What a site is made of, and what its files are called."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

from lab.analysis.history.facts import About, plain
from lab.analysis.history.lines import Event, Line
from lab.analysis.history.points import Point

RUNS_A_FILE = 50
"""What runs say by themselves is loaded so many at a time: for a page of one, and for two that are compared."""

LINES_KEY, RUNS_KEY = "lines", "runs"


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """``runs`` in the order of time, and what was ``observed`` in each; ``reports``: the runs by name that have a
    page of their own. ``unreadable``: what was wrong with the folders that are no part of it. ``level``: at which
    each line was tested.
    """

    title: str
    runs: Sequence[About]
    observed: Sequence[Sequence[Point]]
    lines: Sequence[Line]
    events: Sequence[Event]
    level: float
    unreadable: Sequence[str] = ()
    reports: frozenset[str] = frozenset()
    hosts: Mapping[str, str] = field(default_factory=dict)


def slug(name: str) -> str:
    """A file's name for a run's: no two have the same, and it says nothing to a shell, a server or a browser."""
    words = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:60]
    return f"{words or 'run'}-{sha256(name.encode('utf-8', 'surrogatepass')).hexdigest()[:8]}"


def report_file(name: str) -> str:
    return f"runs/{slug(name)}.html"


def event_file(event: Event) -> str:
    return f"changes/{event.id}.html"


def day(seconds: float) -> str:
    return moment(seconds)[:10]


def moment(seconds: float) -> str:
    """A time that a run.json may say, UTC: ``2026-03-04 03:30``."""
    try:
        return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M}"
    except (OverflowError, OSError, ValueError):
        return "–"


def described_hosts(runs: Iterable[About]) -> dict[str, str]:
    """Each host in a line, as the last run of it says: a host is named by the keyed hash that reports have, too."""
    found = {}
    for run in runs:
        words = [run.facts.get(name, "") for name in ("CPU", "distribution", "kernel")]
        found[run.host] = ", ".join(word for word in words if word)
    return found


def data_files(site: Site) -> tuple[dict[str, str], dict[str, Any]]:
    """The site's data as scripts, text by file name, and what the page must know to load them.

    A file is called by its content, so that one that is there is never another's, and an older page finds its own.
    Scripts, because a page that was opened as a file may not fetch.
    """
    files: dict[str, str] = {}

    def add(key: str, value: Any) -> str:
        text = f"take({json.dumps(key)},{_json(value)});\n"
        digest = sha256(text.encode()).hexdigest()[:12]
        name = f"data/{key.replace('/', '-')}-{digest}.js"
        files[name] = text
        return name

    chunks = [
        add(f"run/{start // RUNS_A_FILE}", _chunk(site, range(start, min(start + RUNS_A_FILE, len(site.runs)))))
        for start in range(0, len(site.runs), RUNS_A_FILE)
    ]
    events = {(line.id, change.place): event.id for event in site.events for line, change in event.changes}
    lines = [_line(line, add(f"line/{line.id}", _points(line)), events) for line in site.lines]
    about = {
        "lines": add(LINES_KEY, lines),
        "runs": add(RUNS_KEY, _runs(site)),
        "chunks": chunks,
        "size": RUNS_A_FILE,
        "hosts": dict(site.hosts),
    }
    return files, about


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=True, separators=(",", ":"), allow_nan=False)


def _coded(values: Sequence[Any]) -> dict[str, Any]:
    """Each value once, and which of them stands where."""
    places: dict[str, int] = {}
    known: list[Any] = []
    codes: list[int] = []
    for value in values:
        key = repr(value)
        if key not in places:
            places[key] = len(known)
            known.append(value)
        codes.append(places[key])
    return {"known": known, "codes": codes}


def _runs(site: Site) -> dict[str, Any]:
    runs = site.runs
    return {
        "name": [shown(run.name) for run in runs],
        "id": [slug(run.name) for run in runs],
        "started": [round(run.started) for run in runs],
        "report": [int(run.name in site.reports) for run in runs],
        "complete": [int(run.complete) for run in runs],
        "ended": _coded([run.ended_because or "not ended" for run in runs]),
        "title": _coded([run.title for run in runs]),
        "scenario": _coded([run.scenario for run in runs]),
        "kind": _coded([run.kind or "compare" for run in runs]),
        "host": _coded([run.host for run in runs]),
        "lab": _coded([run.lab for run in runs]),
        "backend": _coded([run.backends for run in runs]),
        "accelerator": _coded([run.accelerators for run in runs]),
        "blocks": [max((point.n for point in points), default=0) for points in site.observed],
    }


def _line(line: Line, file: str, events: Mapping[tuple[str, int], str]) -> dict[str, Any]:
    return {
        "id": line.id, "file": file, "scenario": line.scenario, "host": line.host, "backend": line.backend,
        "accelerator": line.accelerator, "arm": plain(line.arm), "quantity": plain(line.quantity),
        "title": plain(line.title), "unit": plain(line.unit), "n": len(line.runs),
        "conditions": {plain(name): text for name, text in line.conditions.items()},
        "dependence": _number(line.dependence) if line.dependent else None,
        "changes": [
            {
                "place": change.place, "run": line.runs[change.place], "before": change.before,
                "after": change.after, "ratio": _number(change.ratio),
                "low": _number(change.low), "high": _number(change.high), "direction": change.direction,
                "event": events.get((line.id, change.place), ""),
            }
            for change in line.changes
        ],
    }  # fmt: skip


def _points(line: Line) -> dict[str, Any]:
    return {
        "run": line.runs,
        "median": [point.median for point in line.points],
        "low": [point.low for point in line.points],
        "high": [point.high for point in line.points],
        "n": [point.n for point in line.points],
        "failed": [point.failed for point in line.points],
    }


def _chunk(site: Site, which: range) -> dict[str, Any]:
    """What these runs say: their facts, and the medians of their quantities, each title once."""
    titles: dict[tuple[str, ...], int] = {}
    said = {}
    names = {(line.quantity, line.state, line.arm): line.title for line in site.lines}
    for index in which:
        rows = []
        for point in site.observed[index]:
            title = names.get((point.quantity, point.state, point.arm)) or _title(point)
            key = (plain(point.arm), plain(title), plain(point.unit))
            rows.append(
                [titles.setdefault(key, len(titles)), point.n, point.failed, point.median, point.low, point.high]
            )
        said[index] = {"facts": _facts(site.runs[index]), "rows": rows}
    return {"titles": list(titles), "runs": said}


def _title(point: Point) -> str:
    return f"{point.quantity}, {point.state}" if point.state else point.quantity


def _facts(run: About) -> dict[str, str]:
    facts = dict(run.facts)
    for arm, told in run.arms.items():
        facts |= {f"{plain(arm)}: {name}": text for name, text in told["facts"].items()}
    return facts | {f"condition: {name}": text for name, text in run.conditions.items() if text}


def _number(value: float) -> float | None:
    return float(f"{value:.6g}") if value == value and abs(value) != float("inf") else None


def shown(name: str) -> str:
    """A run's name as it may stand on a page."""
    return plain(name)


def referenced(site: Site, files: Iterable[str]) -> Iterator[str]:
    """Every file that the page leads to, as its path in the folder."""
    yield from files
    yield from (report_file(run.name) for run in site.runs if run.name in site.reports)
    yield from (event_file(event) for event in site.events)
