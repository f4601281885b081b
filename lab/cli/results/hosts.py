"""``lab hosts``: what runs of many hosts say together."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from lab.commands.output import JsonTo, write_json

HOSTS = "hosts"
"""The folder that the report is written into, in the first of those that are looked at."""


def hosts(
    folders: Annotated[
        list[Path],
        typer.Argument(metavar="FOLDER…", help="Where runs are, at any depth: results/sweeps/NAME."),
    ],
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="Where the report is written. Default: hosts in the first FOLDER."),
    ] = None,
    as_json: JsonTo = "",
) -> None:
    """Say what many hosts' runs tell together, and about the next.

    Ratios are made within each host, then put together by random effects, bare, nested and emulated hosts apart;
    seconds of different hosts never are. Writes a page with a forest plot, tables and JSON; names the hosts that
    disagree, with what is special about them, and the runs that don't fit the others.
    """
    from lab.reports.hosts import show, write

    written = write(
        folders, out or folders[0] / HOSTS, command=("lab", *sys.argv[1:]),
        skipped=lambda error: print(f"lab: {error.message}", file=sys.stderr),
    )  # fmt: skip
    if as_json:
        write_json(written.as_json(), as_json)
    else:
        show(written)
