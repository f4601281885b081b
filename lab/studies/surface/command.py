"""``lab isolation surface``: how much of the host's kernel each backend's instances can reach, and do."""

from __future__ import annotations

from typing import Annotated

import typer

from lab.commands.measuring import RESULTS, On, Out, Seed, Target, choose_backends, drawn, measuring, one_each, set_up
from lab.commands.options.application import Port, Ready, asked
from lab.commands.output import JsonTo
from lab.commands.privilege import become_root
from lab.host.units import parse_words
from lab.studies.surface import STUDY


def surface(
    target: Target,
    on: On = "",
    blocks: Annotated[
        int, typer.Option("--blocks", min=1, max=1000, metavar="N", help="How often each is started and traced.")
    ] = 3,
    seed: Seed = None,
    functions: Annotated[
        bool,
        typer.Option("--functions/--no-functions", help="Trace the host kernel's functions, if it permits that."),
    ] = True,
    calls: Annotated[bool, typer.Option("--calls", help="Print a line per system call, too.")] = False,
    port: Port = None,
    ready: Ready = "",
    out: Out = RESULTS,
    as_json: JsonTo = "",
) -> None:
    """Count the attack surface: what of the host's kernel can be reached, and what is.

    Which system calls get through, found by making them harmlessly and by evaluating the filter. Which ones an
    instance makes of the host while it starts, idles and serves; the kernel's functions, too, where the host lets
    them be traced. docs/attack-surface.md explains how to read it, and how not to.
    """
    become_root(*parse_words(on))
    from lab.backends.site import Site

    with Site.open() as site:
        import sys

        from lab.experiment.plan import Plan
        from lab.experiment.provenance import describe
        from lab.experiment.scenarios.scenario import load as application
        from lab.studies.surface.measure import Exposure

        chosen = choose_backends(on)
        scenario = asked(application(target), port, ready)
        setup = set_up(site, scenario, scenario.limits, [], 0.0, backends=chosen, loaded=True)
        seed = drawn(seed)
        plan = Plan(arms=one_each(chosen), seed=seed, blocks=blocks, budget_seconds=0.0)
        described = describe(site, setup, plan, ("lab", *sys.argv[1:]), kind=STUDY.kind)
        with measuring(out, described) as (folder, watch):
            Exposure(site, setup, folder, watch, seed=seed, rounds=blocks, functions=functions).run(chosen)
    from lab.studies.surface.report import SurfaceReport

    SurfaceReport(each_call=calls).conclude(folder, as_json)
