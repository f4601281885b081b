"""``lab class flaw``: runs with a planted fault, and answers to them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lab.cli.classroom.lessons import RESULTS, ROOT, run_folder
from lab.cli.instances.common import show as show_table
from lab.commands.output import JsonTo, write_json

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None)

ANSWERS = typer.Argument(metavar="ANSWERS", help="CSV with the head student,case,flaw,evidence.")
KINDS = typer.Option("--kind", metavar="A,B,…", help="Only these faults, as lab class flaw ls names them.")
SOURCE = typer.Option("--run", metavar="RUN", help="The real run they are planted into.")
HANDOUT = typer.Option("--handout", metavar="DIR", help="What was handed out: its seal has to be that of the key.")


@app.callback()
def flaw() -> None:
    """Hand out recorded runs with one planted fault each; check who found it."""


@app.command("ls")
def list_faults(as_json: JsonTo = "") -> None:
    """List the faults there are, and what the evidence of each has to name."""
    from lab.classroom.flaw.plants import FAULTS

    rows = [(each.name, each.names, each.sentence) for each in FAULTS.values()]
    if as_json:
        write_json([dict(zip(("name", "evidence", "what"), row, strict=True)) for row in rows], as_json)
    else:
        show_table([("FAULT", "EVIDENCE", "WHAT IT IS"), *rows])


@app.command("make")
def make(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A new folder.")],
    run: Annotated[str, SOURCE] = "sample",
    kind: Annotated[str, KINDS] = "",
    seed: Annotated[int | None, typer.Option("--seed", metavar="N", help="Draws order, arms and blocks.")] = None,
    root: Annotated[Path, ROOT] = RESULTS,
) -> None:
    """Write runs with one planted fault each, and the key.

    DIR/handout is for the students; it says of itself that it is an exercise. DIR/key.json is the teacher's alone.
    """
    import secrets

    from lab.classroom.flaw.handout import make as make_it
    from lab.classroom.flaw.plants import FAULTS

    kinds = [each.strip() for each in kind.split(",")] if kind else list(FAULTS)
    key = make_it(folder, run_folder(run, root), kinds, secrets.randbelow(1 << 31) if seed is None else seed)
    print(f"{folder / 'handout'}  for the students: {len(kinds)} runs; lab class flaw ls tells what to look for")
    print(f"{key}  for you alone; the hand-out holds its seal")


@app.command("check")
def check(
    answers: Annotated[Path, ANSWERS],
    key: Annotated[Path, typer.Option("--key", metavar="FILE", help="The key.json of that hand-out.")],
    handout: Annotated[str, HANDOUT] = "",
    csv: Annotated[str, typer.Option("--csv", metavar="FILE", help="Write points as CSV into FILE.")] = "",
    as_json: JsonTo = "",
) -> None:
    """Check answers: half a point for the fault's name, half for its evidence.

    Evidence is words like arm=vm block=3 quantity=memory.pss; what is missing and what is none count alike.
    """
    from dataclasses import asdict

    from lab.classroom.flaw.handout import check as check_them
    from lab.classroom.flaw.handout import open_key
    from lab.classroom.marks import write_csv
    from lab.commands.output import write_text

    found = check_them(answers, open_key(key, Path(handout) if handout else None))
    rows = [(each.student, each.case, f"{each.points:g}", each.says) for each in found]
    if csv:
        write_text(csv, write_csv([("student", "case", "points", "remark"), *rows]))
    if as_json:
        write_json([asdict(each) for each in found], as_json)
    elif not csv:
        show_table([("STUDENT", "CASE", "POINTS", ""), *rows])
