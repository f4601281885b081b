"""``lab report``: rebuild a run's report from its folder, on any machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def report(
    runs: Annotated[
        list[str] | None, typer.Argument(metavar="RUN…", help="A run's name or folder, or latest (the default).")
    ] = None,
    formats: Annotated[
        str,
        typer.Option(
            "--format", metavar="A,B,…", help="html, md, slides, pdf, csv, parquet, json. Default: html,md."
        ),
    ] = "",
    hide: Annotated[
        str,
        typer.Option("--hide", metavar="results", help="Write predict.html: axes, backends, questions, no result."),
    ] = "",
    fail_if: Annotated[
        list[str] | None,
        typer.Option(
            "--fail-if",
            metavar="CONDITION",
            help="End with exit code 3 when it surely holds: 'boot.ratio(container, process) > 2'.",
        ),
    ] = None,
    root: Annotated[Path, typer.Option("--results", metavar="DIR", help="Where runs are looked up by name.")] = Path(
        "results"
    ),
) -> None:
    """Write a run's report again, from its folder alone.

    It needs no root, no hypervisor and no network.
    """
    from lab.analysis.data import load
    from lab.cli.conditions import CONDITION_HOLDS, check, read, require_of
    from lab.errors import UsageError
    from lab.reports import FORMATS, terminal, write, write_hidden
    from lab.reports.density import is_density
    from lab.reports.density import write as write_density
    from lab.reports.ladder import is_ladder
    from lab.reports.ladder import write as write_ladder
    from lab.reports.noisy import is_noisy
    from lab.reports.noisy import write as write_noisy
    from lab.reports.pages import writing
    from lab.reports.surface import is_surface
    from lab.reports.surface import write as write_surface
    from lab.results.store import RunFolder, locate

    with_pages_of_their_own = (
        (is_density, write_density),
        (is_ladder, write_ladder),
        (is_noisy, write_noisy),
        (is_surface, write_surface),
    )
    conditions = read(fail_if or [])
    if hide not in ("", "results"):
        raise UsageError(f"--hide {hide} is not known", hint="write --hide results")
    if hide and fail_if:
        raise UsageError("--fail-if tells a result, and --hide results tells none", hint="leave one away")
    wanted = [name for name in (each.strip() for each in formats.split(",")) if name]
    folders = [locate(word, root) for word in runs or ["latest"]]
    for folder in folders:
        require_of(conditions, folder)
    for folder in folders:
        settings = RunFolder.open(folder).run.settings
        own = next((write_own for is_one, write_own in with_pages_of_their_own if is_one(settings)), None)
        if own is not None and hide:
            raise UsageError(
                f"{folder.name} is a study with a page of its own", hint="--hide is for lab compare's runs"
            )
        if hide:
            for path in write_hidden(folder, wanted or ["html"]):
                typer.echo(path)
            continue
        if own is not None:
            with writing(folder):
                written = own(load(folder))
            for path in written:
                typer.echo(path)
            continue
        written = write(folder, wanted or FORMATS)
        terminal.show(folder)
        for path in written:
            if path.parent == folder:
                typer.echo(path)
    held = [check(conditions, folder) for folder in folders]
    if any(held):
        raise typer.Exit(CONDITION_HOLDS)
