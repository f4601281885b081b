"""``lab isolation ladder``: mechanisms added one at a time, what each step stops and what it costs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from lab.commands.measuring import RESULTS, Out, Seed, Target, drawn, measuring, set_up
from lab.commands.options.application import Port, Ready, asked
from lab.commands.output import JsonTo, say
from lab.commands.privilege import become_root
from lab.host.units import parse_words
from lab.studies.ladder import STUDY

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lab.backends.site import Site
    from lab.experiment.plan import Plan
    from lab.experiment.setup import Setup
    from lab.results.record import Arm, Run
    from lab.studies.ladder.rungs import Rung

METRICS = ["boot", "memory"]


def ladder(
    target: Target,
    rungs: Annotated[
        str,
        typer.Option(
            "--rungs",
            metavar="A,B,…",
            help="Steps to climb, in this order. Default: all usable ones but gvisor, uml, krun.",
        ),
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

    become_root()
    seconds, idle_seconds = parse_seconds(budget), parse_seconds(idle)
    from lab.isolation.registry import choose as choose_probes

    chosen = choose_probes("", probe) if probes else []
    words = parse_words(rungs)
    from lab.backends.site import Site

    with Site.open() as site:
        from dataclasses import replace

        from lab.experiment.plan import Plan
        from lab.experiment.scenarios.scenario import load
        from lab.studies.ladder.measure import Ladder, planned
        from lab.studies.ladder.rungs import choose

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
        with measuring(out, _described(site, setup, plan, climbed)) as (folder, watch):
            Ladder(site, setup, plan, climbed, chosen, folder, watch).run()
    from lab.studies.ladder.report import REPORT

    REPORT.conclude(folder, as_json)


def _usable(rungs: Sequence[Rung], asked: bool) -> tuple[Rung, ...]:
    """Those that this host can climb; says which it can't. Raises BackendUnavailable if one was asked for."""

    from lab.backends.registry import checks_of, find
    from lab.errors import BackendUnavailable
    from lab.runtime.process import landlock

    found = []
    for rung in rungs:
        missing = [
            (f"{check.name}: {check.found}", check.remedy) for check in checks_of(find(rung.backend)) if not check.ok
        ]
        if rung.read_only and not landlock.available():
            missing.append(("this kernel has no Landlock", "boot with landlock in lsm="))
        if not missing:
            if asked:
                find(rung.backend).fetch(say)
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

    from lab.experiment.provenance import describe
    from lab.studies.ladder.measure import request_for_show
    from lab.studies.ladder.rungs import changes

    told = changes(rungs, request_for_show(setup))
    described = [{"name": rung.name, "manual": rung.manual, "changes": list(told[rung.name])} for rung in rungs]
    run = describe(site, setup, plan, ("lab", *sys.argv[1:]), kind=STUDY.kind, rungs=described)
    arms: list[Arm] = []
    for place, (rung, arm) in enumerate(zip(rungs, run.arms, strict=True)):
        arms.append(replace(arm, title=rung.title, mechanism=rung.adds, order=place, differences=()))
    return replace(run, arms=tuple(arms))
