"""``lab bench``: how fast lab itself is, beside what it is made of, in one run on this host."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lab.commands.output import JsonTo, Manner, write_json
from lab.commands.privilege import require_root

if TYPE_CHECKING:
    from lab.backends.site import Site
    from lab.experiment.selfbench.containers import Goal, Results
    from lab.experiment.watch import Watch

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None)

MOST_MACHINE_RUNS = 10
MOST_IMAGE_RUNS = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of one goal: the ratio (or the seconds) with its 95 % interval. ``met`` None: not measured."""

    goal: Goal
    value: float
    low: float
    high: float
    met: bool | None


@app.callback()
def bench() -> None:
    """Measure lab itself, beside what it is made of."""


@app.command(name="self")
def bench_self(
    blocks: Annotated[int, typer.Option("--blocks", min=3, help="Each starts every contender once.")] = 30,
    as_json: JsonTo = "",
    seed: Annotated[int | None, typer.Option("--seed", help="Seed of the random orders. Default: a new one.")] = None,
) -> None:
    """Containers beside runc, crun, unshare; layers and disks beside tar and mke2fs; microvms beside QEMU by hand."""
    require_root()
    import secrets

    from lab.backends.site import Site

    with Site.open() as site:  # starts the launcher while this process is still small
        from lab.experiment.selfbench.containers import Results

        results = Results(rounds=blocks, seed=secrets.randbits(32) if seed is None else seed)
        with _watching() as watch:
            _measure(site, results, watch)
        accelerator = str(site.accelerator) if "microvm" in results.series else ""
    outcomes = judge(results)
    if as_json != "-":
        _print(results, outcomes, accelerator)
    if as_json:
        _write(as_json, results, outcomes, accelerator)


def _measure(site: Site, results: Results, watch: Watch) -> None:
    from lab.errors import LabError
    from lab.experiment.selfbench.builds import measure_builds
    from lab.experiment.selfbench.containers import measure_containers, measure_help
    from lab.experiment.selfbench.docker import measure_docker
    from lab.experiment.selfbench.images import measure_images
    from lab.experiment.selfbench.machines import measure_machines

    measure_containers(site, results, watch)
    measure_help(results, watch)
    try:
        measure_docker(site, results, watch)
    except LabError as error:
        results.absent["docker lab-oci"] = str(error)
    try:
        measure_images(site.store, results, min(results.rounds, MOST_IMAGE_RUNS), watch)
    except LabError as error:
        results.absent["unpack"] = str(error)
    try:
        measure_builds(site.store, results, min(results.rounds, MOST_IMAGE_RUNS), watch)
    except LabError as error:
        results.absent["build"] = str(error)
    try:
        measure_machines(site, results, min(results.rounds, MOST_MACHINE_RUNS), watch)
    except LabError as error:
        results.absent["microvm"] = str(error)


def judge(results: Results) -> list[Outcome]:
    """Every goal against this run's series; none is asserted, since a busy host proves nothing."""
    from lab.experiment.selfbench.containers import GOALS

    return [_judge(goal, results) for goal in GOALS]


def _judge(goal: Goal, results: Results) -> Outcome:
    import numpy as np

    from lab.analysis.inference.estimate import estimates, estimates_apart, median_interval

    ours, theirs = results.series.get(goal.ours), results.series.get(goal.theirs)
    if ours is None or (goal.theirs and theirs is None):
        return Outcome(goal=goal, value=float("nan"), low=float("nan"), high=float("nan"), met=None)
    seconds = np.array(ours.seconds)
    if theirs is None:
        value = float(np.median(seconds))
        low, high = median_interval(seconds)
    else:
        above, below = np.log(seconds), np.log(theirs.seconds)
        # what disturbed a round disturbs both series of it, so that they are compared within rounds
        table = estimates((above - below)[None]) if goal.paired else estimates_apart([(above, below)])
        value, low, high = (float(table.iloc[0][name]) for name in ("ratio", "low", "high"))
    return Outcome(goal=goal, value=value, low=low, high=high, met=value <= goal.at_most)


def _print(results: Results, outcomes: list[Outcome], accelerator: str) -> None:
    import os
    from statistics import median

    from rich.console import Console
    from rich.table import Table

    from lab.experiment.selfbench.containers import TERMS

    console = Console(highlight=False)
    table = Table("", "median ms", "min–max ms", "n", box=None, padding=(0, 2, 0, 0), header_style="bold")
    for column in table.columns[1:]:
        column.justify = "right"
    for one in results.series.values():
        low, high = min(one.seconds) * 1e3, max(one.seconds) * 1e3
        table.add_row(one.what, f"{median(one.seconds) * 1e3:.1f}", f"{low:.1f}–{high:.1f}", str(len(one.seconds)))
    console.print(table)
    goals = Table("", "this run", "95 % interval", "goal", "", box=None, padding=(0, 2, 0, 0), header_style="bold")
    for outcome in outcomes:
        goals.add_row(*_goal_row(outcome))
    if results.parents:
        console.print()
        console.print(_parents(results))
    console.print()
    console.print(goals)
    console.print()
    console.print(TERMS)
    for name, reason in results.absent.items():
        console.print(f"[yellow]![/yellow] {name} was not measured: {reason}", soft_wrap=True, markup=True)
    guests = f", guests executed by {accelerator}" if accelerator else ""
    load = ", ".join(f"{number:.2f}" for number in os.getloadavg())
    console.print(f"\nLinux {os.uname().release}{guests}, load average {load}, seed {results.seed}", soft_wrap=True)


def _parents(results: Results) -> Any:
    """What a runtime's own process takes while it waits."""
    from rich.table import Table

    table = Table("", "RSS MiB", "PSS MiB", box=None, padding=(0, 2, 0, 0), header_style="bold")
    for column in table.columns[1:]:
        column.justify = "right"
    for one in results.parents.values():
        table.add_row(one.what, f"{one.rss_bytes / 2**20:.1f}", f"{one.pss_bytes / 2**20:.1f}")
    return table


def _goal_row(outcome: Outcome) -> tuple[str, str, str, str, str]:
    goal = outcome.goal
    if outcome.met is None:
        return goal.sentence, "–", "–", f"≤ {goal.at_most:g}", "not measured"
    unit = "" if goal.theirs else " s"
    return (
        goal.sentence,
        f"{outcome.value:.3g}{unit}",
        f"{outcome.low:.3g}–{outcome.high:.3g}{unit}",
        f"≤ {goal.at_most:g}{unit}",
        "[green]✓ met[/green]" if outcome.met else "[red]✗ not met[/red]",
    )


def _write(where: str, results: Results, outcomes: list[Outcome], accelerator: str) -> None:
    from dataclasses import asdict

    from lab.host.survey.facts import provenance, versions

    found = {
        "rounds": results.rounds,
        "seed": results.seed,
        "accelerator": accelerator,
        "series": {name: asdict(one) for name, one in results.series.items()},
        "goals": [asdict(outcome) for outcome in outcomes if outcome.met is not None],
        "absent": results.absent,
        "parents": {name: asdict(one) for name, one in results.parents.items()},
        "host": provenance(),
        "versions": versions(),
    }
    write_json(found, where)


@contextmanager
def _watching() -> Iterator[Watch]:
    """What is done right now, on a terminal's standard error."""
    from rich.console import Console

    console = Console(stderr=True, quiet=Manner.quiet)
    with console.status("starting") as status:

        class Shown:
            def doing(self, what: str) -> None:
                status.update(what)

            def progress(self, done: int, expected: int) -> None:
                status.update(f"{done} of {expected}")

            def note(self, sentence: str) -> None:
                console.print(sentence)

        yield Shown()
