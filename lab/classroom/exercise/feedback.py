"""A page for a student: the points of each question and why, the answers, what they printed. One file, escaped."""

from __future__ import annotations

from pathlib import Path

from lab.classroom.exercise.graded import Graded
from lab.classroom.exercise.handout import Exercise, file_name
from lab.classroom.exercise.notebook import Role
from lab.errors import LabError

TEMPLATES = Path(__file__).parents[1] / "templates"
SHOWN = (Role.FREE, Role.SOLUTION, Role.BY_HAND)


def page(exercise: Exercise, each: Graded) -> str:
    """The page as HTML."""
    from lab.reports.page.render import render

    context = {"title": exercise.title, "each": each, "shown_roles": SHOWN}
    return render("feedback.html.j2", context, styles=("report.css", "feedback.css"), beside=TEMPLATES)


def write(exercise: Exercise, each: Graded, folder: Path) -> Path:
    """Put the page into ``folder``, called after the student. Raises LabError when it can't be written."""
    file = folder / f"{file_name(each.name)}.html"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file.write_text(page(exercise, each), encoding="utf-8")
    except OSError as error:
        raise LabError(f"{file} can't be written: {error.strerror}", hint="--feedback with another folder") from error
    return file
