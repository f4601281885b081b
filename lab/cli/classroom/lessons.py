"""``lab class lesson``: the lessons that come with lab, and the start of one's own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lab.cli.instances.common import show as show_table
from lab.commands.completion import complete_lesson
from lab.commands.output import JsonTo, write_json
from lab.errors import ResultsError

if TYPE_CHECKING:
    from lab.classroom.questions.lesson import Lesson

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None)

LESSON = typer.Argument(
    metavar="LESSON", help="A lesson's name, or a folder that holds one.", autocompletion=complete_lesson
)
RUN = typer.Option("--run", metavar="RUN", help="Answer from this run: a name, a folder, latest, or sample.")
ROOT = typer.Option("--results", metavar="DIR", help="Where runs are looked up by name.")
RESULTS = Path("results")


def run_folder(word: str, root: Path) -> Path:
    """The run that ``word`` means; ``sample`` is the one that comes with lab, wherever one is.

    Raises ResultsError when there is none.
    """
    import lab
    from lab.results.store import RUN as RUN_FILE
    from lab.results.store import locate

    shipped = Path(lab.__file__).resolve().parent.parent / "results" / "sample"
    if word == "sample" and (shipped / RUN_FILE).is_file():
        return shipped
    return locate(word, root)


@app.callback()
def lesson() -> None:
    """Look at the lessons; start one of your own; check it."""


@app.command("ls")
def list_lessons(as_json: JsonTo = "") -> None:
    """List the lessons that come with lab, in the order of an introduction."""
    from lab.classroom.questions import lesson as lessons

    found = [lessons.read(lessons.SHIPPED / name) for name in lessons.names()]
    if as_json:
        write_json([_listed(each) for each in found], as_json)
        return
    rows = [(each.name, each.title, str(len(each.questions)), f"{each.minutes} min", each.about) for each in found]
    show_table([("NAME", "TITLE", "QUESTIONS", "TIME", "WHAT IT IS ABOUT"), *rows])


@app.command("show")
def show(
    name: Annotated[str, LESSON],
    run: Annotated[str, RUN] = "",
    root: Annotated[Path, ROOT] = RESULTS,
    as_json: JsonTo = "",
) -> None:
    """Show a lesson's questions; with --run what that run answers to each."""
    from lab.classroom.questions import lesson as lessons
    from lab.classroom.questions.material import material

    found = lessons.read(lessons.locate(name))
    answered = material(found, run_folder(run, root)) if run else None
    if as_json:
        write_json(answered or _listed(found), as_json)
        return
    print(f"{found.title}: {found.about}\n\n{found.intro.strip()}")
    for place, each in enumerate(found.questions):
        print(f"\n{place + 1}. {each.text}")
        for letter, choice in zip("ABCDEFGH", each.choices, strict=False):
            print(f"   {letter}  {choice.text}")
        if not each.choices:
            print(f"   a number, in {each.unit}")
        if answered:
            print("   " + "\n   ".join(_told(answered["questions"][place])))
    if not answered:
        print(f"\nThe answers of a run, and why: lab class lesson show {name} --run sample")


@app.command("new")
def new(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A new folder; its name is the lesson's.")],
) -> None:
    """Write a lesson of two questions, to begin with."""
    from lab.classroom.questions.lesson import create

    for file in create(folder):
        print(file)
    print(f"\ncheck it: lab class lesson check {folder} --run sample")


@app.command("check")
def check(
    names: Annotated[list[str] | None, LESSON] = None,
    run: Annotated[str, RUN] = "",
    root: Annotated[Path, ROOT] = RESULTS,
    as_json: JsonTo = "",
) -> None:
    """Check lessons, those of lab's where none is named: grammar, quantities, units, texts, reveals.

    With --run every question is answered from that run. Exit code 1 when it can't answer one.
    """
    from lab.classroom.questions import lesson as lessons
    from lab.classroom.questions.material import material

    found = [lessons.read(lessons.locate(name)) for name in names or lessons.names()]
    if not run:
        if as_json:
            write_json([_listed(each) for each in found], as_json)
            return
        show_table(
            [("LESSON", "QUESTIONS", ""), *((each.name, str(len(each.questions)), "in order") for each in found)]
        )
        return
    folder = run_folder(run, root)
    answered = [material(each, folder) for each in found]
    if as_json:
        write_json(answered, as_json)
    else:
        rows = [
            (each["lesson"], question["bind"], question["answer"].get("says", "–"), _short(question["answer"]))
            for each in answered
            for question in each["questions"]
        ]
        show_table([("LESSON", "ASKED", "ANSWER", ""), *rows])
    silent = [question for each in answered for question in each["questions"] if "reason" in question["answer"]]
    if silent:
        needs = silent[0]["answer"]["needs"]
        raise ResultsError(
            f"{len(silent)} question{'s' if len(silent) > 1 else ''} this run can't answer; a class is told why",
            hint=f"for {silent[0]['bind']}: {needs}" if needs else "",
        )


def _short(answer: dict[str, Any]) -> str:
    return str(answer.get("reason") or answer["sure"])


def _told(question: dict[str, Any]) -> list[str]:
    answer = question["answer"]
    if "reason" in answer:
        return [
            f"no answer: {answer['reason']}",
            *([f"what would make one: {answer['needs']}"] if answer["needs"] else []),
        ]
    right = [question["choices"][place] for place in answer["right"]]
    said = [f"measured: {answer['says']} ({answer['sure']})"]
    return said + ([f"right: {'; or '.join(right)}"] if question["choices"] else []) + list(answer["notes"])


def _listed(lesson: Lesson) -> dict[str, Any]:
    questions = [
        {"name": each.name, "bind": each.bind.text, "text": each.text, "unit": each.unit}
        | {"choices": [choice.text for choice in each.choices]}
        for each in lesson.questions
    ]
    told = {key: getattr(lesson, key) for key in ("name", "title", "about", "order", "minutes", "intro")}
    return told | {"questions": questions}
