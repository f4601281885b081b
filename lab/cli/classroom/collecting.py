"""``lab class collect``: many students' runs in one picture."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lab.cli.classroom.lessons import RESULTS, ROOT, run_folder
from lab.cli.instances.common import show as show_table
from lab.commands.output import JsonTo, say, write_json, write_text
from lab.errors import LabError, ResultsError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lab.classroom.collect.agreement import Collected

RUNS = typer.Argument(metavar="RUN…", help="Run folders, zip files of them, or folders in which a class put both.")
CSV = typer.Option("--csv", metavar="FILE", help="Write every ratio as CSV into FILE; - is standard output.")
PAGE = typer.Option("--page", metavar="FILE", help="Write the whole as one page.")
PNG = typer.Option("--png", metavar="FILE", help="Write the picture alone.")


def collect(
    runs: Annotated[list[str], RUNS],
    csv: Annotated[str, CSV] = "",
    page: Annotated[str, PAGE] = "",
    png: Annotated[str, PNG] = "",
    root: Annotated[Path, ROOT] = RESULTS,
    as_json: JsonTo = "",
) -> None:
    """Put the runs that students handed in into one picture: what agrees across computers, and what does not.

    Ratios are taken within each run; hardware, virtual and emulated hosts stand apart. What can't be read is named
    with its reason and left out. Needs no root and no network.
    """
    from lab.classroom.collect.agreement import collected
    from lab.classroom.collect.apart import read_all
    from lab.classroom.collect.intake import hand_ins

    named = [Path(word) if Path(word).exists() else run_folder(word, root) for word in runs]
    found: list[tuple[str, Mapping[str, Any]]] = []
    left_out: list[tuple[str, str]] = []
    for each in read_all(hand_ins(named)):
        found += each.runs
        if each.refused:
            left_out.append((each.name, each.refused))
    picture = collected(found, left_out)
    if not picture.lines:
        for who, why in picture.left_out:
            say(f"{who}: {why}")
        raise ResultsError(
            "nothing that was handed in can be compared",
            hint="students hand in results/NAME, as a folder or a zip file",
        )
    _write(picture, csv, page, png)
    if as_json:
        write_json(_as_json(picture), as_json)
    elif "-" not in (csv, page):
        _show(picture)


def _write(picture: Collected, csv: str, page: str, png: str) -> None:
    if csv:
        from lab.classroom.collect.tables import as_rows
        from lab.classroom.marks import write_csv

        write_text(csv, write_csv(as_rows(picture)))
    if page:
        from lab.classroom.collect.page import html

        write_text(page, html(picture))
    if png:
        from lab.classroom.collect.picture import drawn

        try:
            Path(png).write_bytes(drawn(picture, "png"))
        except OSError as error:
            raise LabError(f"{png} can't be written: {error.strerror}", hint="name another file") from error
        say(png)


def _show(picture: Collected) -> None:
    from lab.classroom.collect import tables
    from lab.classroom.collect.agreement import shared

    show_table(tables.hosts(picture))
    for who in shared(picture.lines).values():
        print(f"the same computer: {', '.join(who)}")
    for key, name in tables.quantities(picture).items():
        print(f"\n{name}, times {picture.baseline} of the same run (=: the same, ?: nothing is proven)")
        show_table(tables.of_quantity(picture, *key))
    print()
    show_table(tables.agreements(picture))
    if picture.answers:
        print()
        show_table([("PROBE", "ARM", "WHO FOUND WHAT"), *picture.answers])
    if picture.left_out:
        print()
        show_table([("NOT IN THE PICTURE", "WHY"), *picture.left_out])


def _as_json(picture: Collected) -> dict[str, object]:
    from dataclasses import asdict

    from lab.classroom.collect.agreement import shared

    return {
        "scenario": picture.scenario, "until": picture.until, "baseline": picture.baseline,
        "runs": [
            {"who": line.who, "special": dict(line.special)} | {k: v for k, v in line.told.items() if k != "times"}
            for line in picture.lines
        ],
        "same_host": list(shared(picture.lines).values()),
        "agreements": [asdict(each) for each in picture.agreements],
        "answers": [dict(zip(("probe", "arm", "found"), each, strict=True)) for each in picture.answers],
        "left_out": [dict(zip(("who", "why"), each, strict=True)) for each in picture.left_out],
    }  # fmt: skip
