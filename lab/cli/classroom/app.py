"""``lab class``: its verbs."""

from __future__ import annotations

import typer

from lab.cli.classroom import lessons

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None)
app.add_typer(lessons.app, name="lesson")


@app.callback()
def classroom() -> None:
    """Lessons to predict in, a page for everybody's guesses, marks."""
