"""``lab report``: rebuild a run's report from its folder, on any machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lab.commands.options.conditions import CONDITION_HOLDS, FailIf, check, read, require_of
from lab.commands.output import JsonTo, write_json
from lab.host.units import parse_words


def report(
    runs: Annotated[
        list[str] | None, typer.Argument(metavar="RUN…", help="A run's name or folder, or latest (the default).")
    ] = None,
    formats: Annotated[
        str,
        typer.Option(
            "--format", metavar="A,B,…", help="html, md, slides, pdf, csv, parquet, json, trace. Default: html,md."
        ),
    ] = "",
    hide: Annotated[
        str,
        typer.Option("--hide", metavar="results", help="Write predict.html: axes, backends, questions, no result."),
    ] = "",
    fail_if: FailIf = None,
    root: Annotated[Path, typer.Option("--results", metavar="DIR", help="Where runs are looked up by name.")] = Path(
        "results"
    ),
    as_json: JsonTo = "",
) -> None:
    """Write a run's report again, from its folder alone.

    It needs no root, no hypervisor and no network. With --json, what the report says: an object, or of several runs
    an array of them.
    """
    from lab.errors import UsageError
    from lab.results.store import RunFolder, locate, own_copy
    from lab.studies.registry import study_of

    conditions = read(fail_if or [])
    if hide not in ("", "results"):
        raise UsageError(f"--hide {hide} is not known", hint="write --hide results")
    for option, given in (("--fail-if", bool(fail_if)), ("--json", bool(as_json))):
        if hide and given:
            raise UsageError(f"{option} tells a result, and --hide results tells none", hint="leave one away")
    wanted = parse_words(formats)
    folders = [own_copy(locate(word, root), root) for word in runs or ["latest"]]
    for folder in folders:
        require_of(conditions, folder)
    told = []
    for folder in folders:
        reported = study_of(RunFolder.open(folder).run.settings).report()
        written = reported.write(folder, wanted, hidden=bool(hide))
        if as_json:
            told.append(reported.as_json(folder))
            continue
        if not hide:
            reported.show_again(folder)
        for path in written:
            if path.parent == folder:
                typer.echo(path)
    if as_json:
        write_json(told if len(told) > 1 else told[0], as_json)
    held = [check(conditions, folder) for folder in folders]
    if any(held):
        raise typer.Exit(CONDITION_HOLDS)
