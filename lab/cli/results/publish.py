"""``lab publish``: all results as a site that needs no server."""

from __future__ import annotations

import re
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from lab.commands.output import JsonTo, say, write_json
from lab.errors import UsageError


def publish(
    target: Annotated[
        Path, typer.Argument(metavar="DIR", help="The site's folder: new, empty, or published before.")
    ],
    root: Annotated[Path, typer.Option("--results", metavar="DIR", help="Where the runs are.")] = Path("results"),
    title: Annotated[str, typer.Option("--title", metavar="TEXT", help="The site's heading.")] = "What lab measured",
    url: Annotated[
        str, typer.Option("--url", metavar="URL", help="Where it will be read, for the feed's links: https://…")
    ] = "",
    reports: Annotated[
        int, typer.Option("--reports", metavar="N", min=0, help="Whole reports of the newest N runs; 0: none.")
    ] = 100,
    everything: Annotated[
        bool, typer.Option("--all", help="A time line of every quantity, not only of those that are judged.")
    ] = False,
    as_json: JsonTo = "",
) -> None:
    """Write all results as a site: runs, time lines, changes.

    It is read from the folder, offline and without a server. Published again, only what is new is made; what is gone
    from --results is removed from the site. docs/publishing.md has how to do it every night.
    """
    from lab.commands.publishing.publish import Wanted
    from lab.commands.publishing.publish import publish as write
    from lab.results.store import RunFolder
    from lab.studies.registry import study_of

    if url and not re.fullmatch(r"https?://[^\s\"<>]+", url):
        raise UsageError(f"--url {url} is no address", hint="--url https://example.org/lab/")

    def render(folder: Path) -> str:
        return study_of(RunFolder.open(folder).run.settings).report().page(folder)

    done = write(target, root, Wanted(title=title, url=url, reports=reports, everything=everything), render)
    if as_json:
        write_json(asdict(done), as_json)
        return
    say(
        f"lab: {done.runs:,} runs ({done.read:,} read anew), {done.lines:,} time lines, {done.changes:,} changes "
        f"({done.new_changes:,} new), {done.reports_written:,} reports written"
    )
    if done.unreadable:
        say(f"lab: {done.unreadable:,} could not be read; the site names them")
    print(done.index)
