"""``lab scenario matrix``: which scenario works behind which boundary, by running each of them."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lab.cli.instances.common import show
from lab.commands.completion import complete_backends, complete_scenario
from lab.commands.output import JsonTo, write_json
from lab.commands.privilege import become_root
from lab.errors import LabError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from lab.backends.site import Site
    from lab.experiment.compatibility import Trial
    from lab.experiment.watch import Watch
    from lab.model import Scenario
    from lab.results.compatibility import Cell, Matrix


def matrix(
    scenarios: Annotated[
        list[str] | None,
        typer.Argument(metavar="SCENARIO|DIR…", help="Which ones. Default: all.", autocompletion=complete_scenario),
    ] = None,
    on: Annotated[
        str,
        typer.Option(
            "--on",
            metavar="A,B,…",
            help="Backends, and oci:PATH for OCI runtimes. Default: every one that is installed.",
            autocompletion=complete_backends,
        ),
    ] = "",
    timeout: Annotated[
        str,
        typer.Option("--timeout", metavar="TIME", help="The most that a copy may take to be ready, and its check."),
    ] = "10m",
    markdown: Annotated[
        Path | None, typer.Option("--markdown", metavar="FILE", help="Write a page like docs/matrix.md, too.")
    ] = None,
    as_json: JsonTo = "",
) -> None:
    """Find out which scenario works on which backend, by running each.

    Builds every scenario, starts one copy of it on each backend, waits until it is ready, checks it by its own work
    or load, and stops it. What works but for a reason, and what fails, is told with the reason. One that fails does
    not end the others. After Ctrl-C, what was found until then is shown.
    """
    from lab.experiment.scenarios.scenario import load, names
    from lab.host.survey import facts
    from lab.host.units import parse_seconds, parse_words
    from lab.results.compatibility import Matrix

    at_most_seconds = parse_seconds(timeout)
    wanted = {each.name: each for each in map(load, scenarios or names())}
    if markdown is not None and not markdown.parent.is_dir():
        raise LabError(
            f"{markdown} can't be written: {markdown.parent} is no folder", hint=f"mkdir {markdown.parent}"
        )
    become_root(*parse_words(on))
    from lab.backends.site import Site
    from lab.commands.measuring import choose_backends
    from lab.commands.progress import following
    from lab.experiment.compatibility import Trial, looked_at

    started = datetime.now(UTC).isoformat(timespec="seconds")
    cells: list[Cell] = []
    chosen, complete = choose_backends(on, references=True), False
    try:
        with Site.open() as site, following() as watch:
            trial = Trial(site, at_most_seconds)
            for number, scenario in enumerate(wanted.values()):
                row = _row(site, trial, scenario, chosen, watch, number * len(chosen), len(wanted))
                cells.extend(row)  # each as it comes: what there is after Ctrl-C counts
        complete = True
    finally:
        found = Matrix(
            started=started,
            command_line=("lab", *sys.argv[1:]),
            scenarios=tuple(wanted),
            backends=tuple(chosen),
            checks={name: looked_at(scenario) for name, scenario in wanted.items()},
            cells=tuple(cells),
            host=facts.provenance(),
            versions=facts.versions(),
            complete=complete,
        )
        if cells:
            _tell(found, as_json, markdown)


def _row(
    site: Site, trial: Trial, scenario: Scenario, backends: Sequence[str], watch: Watch, done: int, rows: int
) -> Iterator[Cell]:
    """A scenario on each backend; of one that can't be built, a failure on each."""
    from lab.commands.measuring import set_up
    from lab.results.compatibility import Outcome

    watch.progress(done, rows * len(backends))
    watch.doing(f"building {scenario.name}")
    try:
        setup = set_up(site, scenario, scenario.limits, [], 0.0, backends=backends, loaded=True)
    except LabError as error:
        watch.note(f"{scenario.name}: {error.message}")
        yield from (trial.unmade(scenario.name, name, error) for name in backends)
        return
    for place, name in enumerate(backends):
        watch.progress(done + place, rows * len(backends))
        watch.doing(f"{scenario.name} on {name}: trying")
        cell = trial.run(setup, name)
        if cell.outcome is Outcome.FAILS:
            watch.note(f"{scenario.name} on {name} fails: {cell.reasons[0]}")
        yield cell


def _tell(found: Matrix, as_json: str, markdown: Path | None) -> None:
    """The table, or JSON in its place. A page is not written over with half of one."""
    from lab.reports import compatibility

    if as_json:
        write_json(found.as_json(), as_json)
    else:
        show(compatibility.table(found))
        print()
        for line in compatibility.legend(found):
            print(line)
        print(f"{compatibility.summary(found)}" + ("" if found.complete else " (it was not finished)"))
    if markdown is not None and found.complete:
        try:
            markdown.write_text(compatibility.markdown(found), encoding="utf-8")
        except OSError as error:
            raise LabError(f"{markdown} can't be written: {error.strerror}", hint="--markdown FILE") from error
        print(f"lab: {markdown}", file=sys.stderr)
