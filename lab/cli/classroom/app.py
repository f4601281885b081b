"""``lab class``: its verbs."""

from __future__ import annotations

import typer

from lab.cli.classroom import collecting, exercises, flaws, kit, lessons, results, serving

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None)
app.add_typer(lessons.app, name="lesson")
app.add_typer(flaws.app, name="flaw")
app.add_typer(exercises.app, name="exercise")
app.command("serve")(serving.serve)
app.command("check")(exercises.check)
app.command("results")(results.results)
app.command("kit")(kit.kit)
app.command("collect")(collecting.collect)
app.command("ls")(serving.list_classes)
app.command("rm")(serving.remove)


@app.callback()
def classroom() -> None:
    """Lessons to predict in, a page for everybody's guesses, marks."""
