"""``lab isolation ladder``: mechanisms added one at a time, what each step stops and what it costs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from lab.cli.measuring import RESULTS, Out, Seed, Target, drawn, set_up, tell
from lab.cli.privilege import require_root
from lab.cli.ready import Port, Ready, asked
from lab.cli.shape import JsonTo, say

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lab.backends.site import Site
    from lab.experiment.plan import Plan
    from lab.experiment.rungs import Rung
    from lab.experiment.setup import Setup
    from lab.results.record import Arm, Run
    from lab.results.store import RunFolder

METRICS = ["boot", "memory"]


def ladder(
    target: Target,
    rungs: Annotated[
        str, typer.Option("--rungs", metavar="A,B,…", help="Steps to climb, in this order. Default: all usable ones.")
    ] = "",
    blocks: Annotated[
        int | None,
        typer.Option("--blocks", min=1, help="Each measures every rung once. Default: as many as the budget allows."),
    ] = None,
    budget: Annotated[
        str, typer.Option("--budget", metavar="TIME", help="Time for the blocks, three at least.")
    ] = "3m",
    seed: Seed = None,
    idle: Annotated[
        str, typer.Option("--idle", metavar="TIME", help="How long it idles before its memory is read.")
    ] = "0.2s",
    probe: Annotated[str, typer.Option("--probe", metavar="A,B,…", help="Only these probes. Default: all.")] = "",
    probes: Annotated[
        bool, typer.Option("--probes/--no-probes", help="Ask the isolation probes on each rung.")
    ] = True,
    port: Port = None,
    ready: Ready = "",
    out: Out = RESULTS,
    as_json: JsonTo = "",
) -> None:
    """Add a container's mechanisms one at a time, measure each step.

    From chroot to a kernel of its own. Says which step stops which probe, and what each costs in time and memory.
    docs/ladder.md explains the rungs.
    """
    from lab.host.units import parse_seconds

    require_root()
    seconds, idle_seconds = parse_seconds(budget), parse_seconds(idle)
    from lab.cli.isolation import choose as choose_probes

    chosen = choose_probes("", probe) if probes else []
    words = [word.strip() for word in rungs.split(",") if word.strip()]
    from lab.backends.site import Site

    with Site.open() as site:
        from dataclasses import replace

        from lab.cli.interrupt import what_there_is
        from lab.cli.watching import watching
        from lab.experiment.ladder import Ladder, planned
        from lab.experiment.plan import Plan
        from lab.experiment.rungs import choose
        from lab.experiment.scenario import load
        from lab.results.store import RunFolder

        climbed = _usable(choose(words), bool(words))
        scenario = asked(load(target), port, ready)
        setup = set_up(site, scenario, scenario.limits, METRICS, idle_seconds, backends=("container",))
        plan = Plan(
            arms=planned(climbed),
            seed=drawn(seed),
            blocks=blocks,
            budget_seconds=seconds,
        )
        setup = replace(setup, isolation=bool(chosen))
        folder = RunFolder.create(out, _described(site, setup, plan, climbed))
        with folder, watching(folder.run) as watch, what_there_is(folder):
            Ladder(site, setup, plan, climbed, chosen, folder, watch).run()
    show(folder, as_json)


def _usable(rungs: Sequence[Rung], asked: bool) -> tuple[Rung, ...]:
    """Those that this host can climb; says which it can't. Raises BackendUnavailable if one was asked for."""

    from lab.backends.registry import find
    from lab.errors import BackendUnavailable
    from lab.runtime.process import landlock

    found = []
    for rung in rungs:
        missing = [
            (f"{check.name}: {check.found}", check.remedy) for check in find(rung.backend).check() if not check.ok
        ]
        if rung.read_only and not landlock.available():
            missing.append(("this kernel has no Landlock", "boot with landlock in lsm="))
        if not missing:
            found.append(rung)
        elif asked:
            raise BackendUnavailable(f"{rung.name} can't be climbed here: {missing[0][0]}", hint=missing[0][1])
        else:
            say(f"lab: without {rung.name}: {missing[0][0]} ({missing[0][1]})")
    return tuple(found)


def _described(site: Site, setup: Setup, plan: Plan, rungs: Sequence[Rung]) -> Run:
    """The run's provenance: arms are rungs, and ``settings`` hold what the report says about each."""
    import sys
    from dataclasses import replace

    from lab.experiment.ladder import KIND, request_for_show
    from lab.experiment.provenance import describe
    from lab.experiment.rungs import changes

    told = changes(rungs, request_for_show(setup))
    described = [{"name": rung.name, "manual": rung.manual, "changes": list(told[rung.name])} for rung in rungs]
    run = describe(site, setup, plan, ("lab", *sys.argv[1:]), kind=KIND, rungs=described)
    arms: list[Arm] = []
    for place, (rung, arm) in enumerate(zip(rungs, run.arms, strict=True)):
        arms.append(replace(arm, title=rung.title, mechanism=rung.adds, order=place, differences=()))
    return replace(run, arms=tuple(arms))


def show(folder: RunFolder, as_json: str) -> None:
    """Write the run's report, and say the essence of it."""
    from lab.analysis.loaded import load
    from lab.reports.ladder import terminal, write

    loaded = load(folder.path)
    written = write(loaded)

    def essence() -> None:
        terminal(loaded)
        print(f"\nreport: {written[-1]}")

    tell(folder, as_json, essence)
