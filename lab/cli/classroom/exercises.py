"""``lab class exercise`` and ``lab class check``: notebooks that are handed out, and what comes back."""

from __future__ import annotations

import sys
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lab.classroom.marks import Layout
from lab.cli.instances.common import show as show_table
from lab.commands.output import JsonTo, harmless, say, write_json

if TYPE_CHECKING:
    from lab.classroom.exercise.graded import Graded

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None)

NOTEBOOK = typer.Argument(metavar="TEACHER.ipynb", help="Your notebook; or start-times, which comes with lab.")
STUDENT = typer.Option("--student", metavar="NAME", help="Make one for this student; again for each.")
ROSTER = typer.Option("--roster", metavar="FILE", help="CSV of all students: nickname,name,email,id,…")
SEED = typer.Option(
    "--seed", metavar="N", min=0, help="Draws each student's own seed; without students it is the one."
)


@app.callback()
def exercise() -> None:
    """Hand out notebooks with questions; lab class check grades what comes back."""


@app.command("make")
def make(
    notebook: Annotated[str, NOTEBOOK],
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A new folder.")],
    student: Annotated[list[str] | None, STUDENT] = None,
    roster: Annotated[str, ROSTER] = "",
    seed: Annotated[int | None, SEED] = None,
) -> None:
    """Write the students' version of a notebook, and the key.

    The notebook is marked as nbgrader has it: solutions, tests, hidden tests, points. DIR/handout is for the
    students, a notebook for each, or one for all. DIR/key.json is the teacher's alone.
    """
    import secrets

    from lab.classroom.exercise import handout

    people: dict[str, dict[str, str]] = handout.students_of(Path(roster)) if roster else {}
    people |= {name: {} for name in student or []}
    drawn = secrets.randbelow(1 << 31) if seed is None else seed
    key, written = handout.make(handout.locate(notebook), folder, people, drawn)
    print(f"{folder / handout.HANDOUT}  for the students: {len(written)} notebook{'s' if len(written) > 1 else ''}")
    print(f"{key}  for you alone: solutions, tests, seeds")
    say(f"see that your own solutions have all points: lab class check --key {key}")


@app.command("new")
def new(file: Annotated[Path, typer.Argument(metavar="FILE", help="A new file NAME.ipynb.")]) -> None:
    """Write the exercise that comes with lab, to be changed."""
    from lab.classroom.exercise import handout

    handout.create(file)
    print(file)


HANDED_IN = typer.Argument(
    metavar="[SUBMISSION.ipynb…|FOLDER]", help="NAME.ipynb, or folders that hold them. Without: your own solutions."
)
KEY = typer.Option("--key", metavar="FILE", help="The key.json that lab class exercise make wrote.")
CSV = typer.Option("--csv", metavar="FILE", help="Write the points as CSV into FILE; - is standard output.")
LAYOUT = typer.Option("--for", help="Whose columns the CSV has.")
FEEDBACK = typer.Option("--feedback", metavar="DIR", help="Write a page for each student into DIR.")
TIMEOUT = typer.Option("--timeout", metavar="TIME", help="The most that one hand-in may take.")
MEMORY = typer.Option("--memory", "-m", metavar="SIZE", help="How much memory it may have, like 256M.")
IMAGE = typer.Option("--image", metavar="IMAGE", help="An image with python3 to execute it in, like one with numpy.")


def check(
    key: Annotated[Path, KEY],
    submissions: Annotated[list[Path] | None, HANDED_IN] = None,
    csv: Annotated[str, CSV] = "",
    layout: Annotated[Layout, LAYOUT] = Layout.PLAIN,
    feedback: Annotated[Path | None, FEEDBACK] = None,
    timeout: Annotated[str, TIMEOUT] = "60s",
    memory: Annotated[str, MEMORY] = "256M",
    image: Annotated[str, IMAGE] = "",
    as_json: JsonTo = "",
) -> None:
    """Grade hand-ins of an exercise, each in containers of lab's own.

    They have no network, a read-only root, and limits of memory, processes, CPU, disk, output and time. The tests run
    in another container than the hand-in; they and the locked cells are taken from the key, never from the hand-in.
    """
    from lab.classroom.exercise import feedback as pages
    from lab.classroom.exercise import graded, handout
    from lab.commands.grading.check import How
    from lab.commands.grading.check import check as check_them
    from lab.commands.output import write_text
    from lab.commands.privilege import require_root
    from lab.host.units import parse_bytes, parse_seconds

    exercise = handout.open_key(key)
    how = How(timeout_seconds=parse_seconds(timeout), memory_bytes=parse_bytes(memory), image=image)
    require_root()
    found: list[Graded] = []
    try:
        with closing(check_them(exercise, submissions or [], how)) as graded_one_by_one:
            for each in graded_one_by_one:
                found.append(each)
                if sys.stderr.isatty():
                    say(f"lab: {each.name} is graded")
                if feedback is not None:
                    pages.write(exercise, each, feedback)
    finally:
        if csv and found:
            write_text(csv, graded.as_csv(exercise, found, layout))
    if as_json:
        write_json(graded.as_data(found), as_json)
    elif not csv:
        rows = [
            (
                harmless(each.name),
                f"{each.points:g}",
                f"{each.possible:g}",
                f"{each.by_hand:g}",
                harmless(each.remark),
            )
            for each in found
        ]
        show_table([("STUDENT", "POINTS", "OF", "BY HAND", ""), *rows])
