"""``lab density``: how many copies fit, and what the next one costs."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import Annotated

import typer

from lab.commands.measuring import (
    RESULTS,
    KeepFree,
    On,
    Out,
    Target,
    choose_backends,
    copies_at_once,
    floor_bytes,
    measuring,
    one_each,
    set_up,
)
from lab.commands.options.application import Port, Ready, asked
from lab.commands.output import JsonTo
from lab.commands.privilege import become_root
from lab.experiment.hostfactors.registry import host_levels
from lab.host.units import parse_words
from lab.studies.density import STUDY


def density(
    target: Target,
    up_to: Annotated[int, typer.Option("--up-to", min=1, max=10_000, metavar="N", help="Copies per backend.")] = 20,
    on: On = "",
    burst: Annotated[
        str, typer.Option("--burst", metavar="K,…", help="Also start K copies at once, for each K: 1,4,16.")
    ] = "",
    budget: Annotated[str, typer.Option("--budget", metavar="TIME", help="Time for each backend's stack.")] = "5m",
    keep_free: KeepFree = "",
    caches: Annotated[
        str,
        typer.Option(
            "--caches",
            metavar="warm|cold",
            help="Whether the host has in memory what a copy reads; verified before each. Default: warm.",
        ),
    ] = "",
    ksm: Annotated[
        str,
        typer.Option("--ksm", metavar="on|off", help="Let the host keep equal pages of all copies once."),
    ] = "",
    port: Port = None,
    ready: Ready = "",
    out: Out = RESULTS,
    as_json: JsonTo = "",
) -> None:
    """Find out how many copies fit.

    One copy after the other is started on each backend, until N stand, memory runs short, or one does not come up.
    Measures what each more copy costs in memory and in time until it is ready, and says how that grows.
    The host keeps a floor of free memory.
    """
    from lab.host.units import parse_seconds

    become_root(*parse_words(on))
    bursts = copies_at_once("--burst", burst, 1)
    seconds = parse_seconds(budget)
    floor = floor_bytes(keep_free)
    from lab.backends.site import Site

    with Site.open() as site:
        from lab.experiment.factors import require_possible
        from lab.experiment.plan import Plan
        from lab.experiment.provenance import describe
        from lab.experiment.scenarios.scenario import load
        from lab.studies.density.measure import Density, Until

        chosen = choose_backends(on)
        host = host_levels({"caches": caches} | ({"ksm": ksm} if ksm else {}))
        if ksm == "on":
            require_possible("ksm")
        scenario = asked(load(target), port, ready)
        setup = replace(set_up(site, scenario, scenario.limits, [], 0.0, backends=chosen), host=host)
        until = Until(
            copies=up_to,
            floor_bytes=floor,
            seconds=seconds,
            bursts=bursts,
        )
        plan = Plan(arms=one_each(chosen), seed=0, blocks=None, budget_seconds=seconds)
        told = {"kind": STUDY.kind, "floor_bytes": until.floor_bytes, "copies": up_to}
        with measuring(out, describe(site, setup, plan, ("lab", *sys.argv[1:]), **told)) as (folder, watch):
            Density(site, setup, until, folder, watch).run(chosen)
    from lab.studies.density.report import REPORT

    REPORT.conclude(folder, as_json)
