"""``lab class results``: who guessed what, marks for a learning platform, what was believed before and after."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lab.classroom.marks import Layout
from lab.cli.instances.common import show as show_table
from lab.commands.completion import complete_class
from lab.commands.output import JsonTo, say, write_json, write_text
from lab.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lab.classroom.marks import Marked
    from lab.classroom.session.store import Store

CLASS = typer.Argument(
    metavar="[CLASS]", help="As lab class ls names it; without one the last.", autocompletion=complete_class
)
CSV = typer.Option("--csv", metavar="FILE", help="Write marks as CSV into FILE; - is standard output.")
LAYOUT = typer.Option("--for", help="Whose columns the CSV has.")
ROSTER = typer.Option("--roster", metavar="FILE", help="CSV that ties nicknames to people: nickname,name,email,id,…")
PAGE = typer.Option("--page", metavar="FILE", help="Write a page of what was believed before and after; no names.")


def results(
    name: Annotated[str, CLASS] = "",
    csv: Annotated[str, CSV] = "",
    layout: Annotated[Layout, LAYOUT] = Layout.PLAIN,
    roster: Annotated[str, ROSTER] = "",
    page: Annotated[str, PAGE] = "",
    as_json: JsonTo = "",
) -> None:
    """Show what a class guessed; write marks as CSV, and a page of what was believed before and after.

    A point for each question whose last guess agreed with what was measured; those that the run can't answer give
    none. It can be asked while the class is served.
    """
    from lab.classroom import believed, marks
    from lab.classroom.session.store import Store, folder_of

    people = marks.roster(Path(roster)) if roster else {}
    store = Store(folder_of(name or _last()))
    try:
        found = marks.marks(store, people)
        unknown = [each.nickname for each in found if roster and not each.person]
        if unknown:
            say(f"not in the roster: {', '.join(unknown)}")
        if csv:
            write_text(csv, marks.as_csv(store, found, layout))
        if page:
            write_text(page, believed.page(store, found))
        if as_json:
            write_json(_as_json(store, found), as_json)
        elif not csv and not page:
            _show(store, found)
    finally:
        store.close()


def _last() -> str:
    from lab.classroom.session.store import every

    known = sorted((each["used"], name) for name, each in every())
    if not known:
        raise UsageError("no class was held yet", hint="lab class serve LESSON")
    return known[-1][1]


def _show(store: Store, found: Sequence[Marked]) -> None:
    from lab.classroom.marks import believed

    told = believed(store, found)
    possible = sum("reason" not in each["question"]["answer"] for each in told)
    rows = [
        (each.nickname, each.person.get("name", ""), f"{each.points} of {possible}", str(each.guessed))
        for each in found
    ]
    show_table([("NICKNAME", "NAME", "POINTS", "GUESSED"), *rows])
    print()
    lines = [
        (
            each["question"]["name"],
            str(each["guessed"]),
            str(each["before"]),
            str(each["after"]) if each["again"] else "–",
        )
        for each in told
    ]
    show_table([("QUESTION", "GUESSED", "RIGHT BEFORE", "RIGHT AFTER"), *lines])


def _as_json(store: Store, found: Sequence[Marked]) -> dict[str, object]:
    from lab.classroom.marks import believed

    students = [
        {"nickname": each.nickname, "person": dict(each.person), "points": each.points, "guessed": each.guessed}
        | {"first": each.first, "last": each.last, "right_first": each.right_first, "right": each.right}
        for each in found
    ]
    keys = ("guessed", "again", "before", "after", "to_right", "to_wrong")
    questions = [
        {"name": each["question"]["name"]} | {key: each[key] for key in keys} for each in believed(store, found)
    ]
    return {"lesson": store.get("material")["lesson"], "students": students, "questions": questions}
