"""A race as one HTML file: it fetches nothing, and runs in the browser as often as somebody likes."""

from __future__ import annotations

import os
from pathlib import Path

from lab.classroom.race.model import NOT_MEASURED, Race
from lab.classroom.race.told import data, rows
from lab.errors import LabError
from lab.reports.page.render import put, render

TEMPLATES = Path(__file__).parents[1] / "templates"


def write(race: Race, file: Path, report: Path | None, command: str) -> Path:
    """The page as ``file``, with a link to ``report`` where there is one, and the ``command`` that writes it.

    Raises LabError where it can't be written.
    """
    try:
        return put(file, html(race, _address(report, file.parent) if report else "", command))
    except OSError as error:
        raise LabError(
            f"{file} can't be written: {error.strerror}", hint="--html FILE, in a folder of yours"
        ) from error


def html(race: Race, report: str, command: str) -> str:
    """The page's text; ``report`` is the address of the report, "" for none."""
    told = data(race)
    table = rows(race)
    context = {
        "title": race.title,
        "goal": race.goal,
        "source": race.source,
        "remark": NOT_MEASURED,
        "report": report,
        "command": command,
        "head": table[0],
        "rows": table[1:],
    }
    return render("race.html.j2", context, styles=("race.css",), scripts=("race.js",), data=told, beside=TEMPLATES)


def live(title: str, command: str) -> str:
    """The text of a page for a race that happens: it hears of everything by ``/events``. ``command`` measures."""
    context = {
        "title": title,
        "goal": "",
        "source": "live",
        "remark": NOT_MEASURED,
        "report": "",
        "command": command,
        "rows": [],
        "connects": True,
    }
    return render("race.html.j2", context, styles=("race.css",), scripts=("race.js", "live.js"), beside=TEMPLATES)


def _address(report: Path, folder: Path) -> str:
    """From the page to the report: relative, so that both can be moved together."""
    try:
        return Path(os.path.relpath(report.resolve(), folder.resolve())).as_posix()
    except ValueError:  # another drive
        return report.resolve().as_uri()
